from barycenter.fusion.dataset import FusedDataset
from tests.fusion.features_on_disk import write_features


def test_ray_data_reads_the_files_of_a_fused_data_set(ray_session, tmp_path):
    import ray

    write_features(tmp_path, [25, 13])
    data = ray.data.read_parquet(FusedDataset(tmp_path).files).select_columns(["id", "fused"])
    rows = sorted(data.take_all(), key=lambda row: int(row["id"][1:]))
    assert [row["id"] for row in rows] == [f"k{i}" for i in range(38)]
    assert [float(value) for value in rows[17]["fused"]] == [17, 17.125, 17.25, 17.375]
