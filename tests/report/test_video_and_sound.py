"""Table 9 of the SBM paper with our numbers."""

from sbm_jax.config import plain
from sbm_jax.experiment_config import parse_config
from sbm_jax.report import choices, exhibits
from tests.test_configs import load_config


def _estimate(value):
    return {"value": value, "std": 0.1, "n": 2000, "spread": ""}


def test_published_numbers_stand_beside_ours():
    metrics = {"inception/fid/given_rest/video": 90.0, "sound/vggish/fad/given_rest/sound": 7.0}
    metrics |= {"vggish/fad/unconditional/sound": 3.0}
    systems = {"sbm_vae": {"metrics": {name: _estimate(value) for name, value in metrics.items()}}}
    table, _ = exhibits.exhibits({"published": "sbm_video_audio", "systems": systems, "config": {}})
    rows = dict(table.rows)
    assert table.label == "Table 9"
    assert [cell.ours and cell.ours["value"] for cell in rows["sbm_vae"]] == [None, 3.0, 90.0, 7.0]
    assert [cell.paper.value for cell in rows["sbm_vae"]] == [99.02, 3.31, 101.19, 8.23]
    assert [cell.paper and cell.paper.value for cell in rows["CoDi, on these data"]] == [None, None, 100.4, 14.9]
    assert [cell.paper and cell.paper.value for cell in rows["CoDi, on COCO and AudioCaps"]][2:] == [11.26, 1.80]
    assert "from nothing: FID" in table.missing


def test_the_config_has_the_papers_settings():
    config = plain(parse_config(load_config("video_audio.py")))
    differences = {row[0] for row in choices.differences({"published": "sbm_video_audio", "config": config})}
    assert not differences & {"data.video_files.seconds", "data.video_files.size", "score.network.name"}
