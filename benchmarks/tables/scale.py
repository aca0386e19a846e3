"""Tables of cost against rows."""

from benchmarks.tables.blocks import block, last, number, spread, table, with_source

_TEN_BILLION = 10**10
_ROWS_PER_SHARD = 4096


@block
def scale() -> str:
    """Fit and fuse at three sizes."""
    run = last("scale")
    rows = [
        [f"{size['rows']:,}", f"{size['fit_per_million']:.1f}", f"{size['fuse_per_million']:.1f}",
         f"{size['seconds_per_million']:.1f}", f"{size['driver_mb']:.0f} MB", f"{size['worker_mb']:.0f} MB"]
        for size in run.figures["sizes"]
    ]  # fmt: skip
    head = ["rows", "fit, s a million rows", "fuse", "both", "peak memory, driver", "worker"]
    return with_source(table(head, rows), run)


@block
def copy() -> str:
    """Fuse beside processes that only copy."""
    run = last("scale")
    size = next(size for size in run.figures["sizes"] if "copy_rows_per_s" in size)
    ours = size["rows"] / size["fuse_s"]
    rows = [[f"fuse, {size['workers']} workers of one thread", number(ours), ""]]
    for processes, what in (
        (1, "one copying process, with pyarrow's threads"),
        (2, "two copying processes of one thread"),
    ):
        rates = run.samples[f"bare copies, {processes} process(es), rows/s"]
        share = run.figures["fuse_vs_copy" if processes == 1 else "fuse_vs_copy_per_core"]
        rows.append([what, spread(rates), f"{share:.2f}"])
    return with_source(table(["1,000,000 rows", "rows/s (range)", "fuse's rate, of it"], rows), run)


@block
def planning() -> str:
    """A million shards planned and dispatched."""
    real, imagined, again = last("scale"), last("simulate"), last("replan")
    rows = [
        ["a million shards of a corpus of 100 files planned", f"{real.figures['plan_million_s']:.1f} s",
         f"{real.figures['plan_million_mb']:.0f} MB at most"],
        ["a million shards of a listing of 10,000 files planned", f"{imagined.figures['plan_s']:.1f} s",
         f"{imagined.figures['plan_mb_per_million_shards']:.0f} MB more"],
        [f"{again.figures['shards']:,} shards that are done planned again", f"{again.figures['seconds']:.2f} s",
         f"{again.figures['megabytes']:.0f} MB at most"],
        ["a shard dispatched, two workers that do nothing", f"{real.figures['dispatch_ms_per_shard']:.2f} ms", ""],
    ]  # fmt: skip
    rows += [
        [f"a shard dispatched, {int(workers):,} imagined workers", f"{each:.2f} ms", f"{ideal:.3f} of the ideal time"]
        for (workers, each), ideal in zip(
            imagined.figures["driver_ms_per_shard"].items(), imagined.figures["of_ideal"].values(), strict=True
        )
    ]
    return with_source(table(["planning", "", ""], rows), real, imagined, again)


@block
def ten_billion() -> str:
    """What ten billion rows would take, extrapolated."""
    real, imagined = last("scale").figures, last("simulate").figures
    shards = _TEN_BILLION / _ROWS_PER_SHARD / 10**6
    low, high = sorted((real["plan_million_s"], imagined["plan_s"]))
    memory = imagined["plan_mb_per_million_shards"]
    rows = [
        ["planning", f"{shards * low:.0f} to {shards * high:.0f} s and {shards * memory / 1000:.1f} GB in the driver",
         f"{low:.1f} to {high:.1f} s and {memory:.0f} MB a million shards"],
        ["hashes of keys in fuse", "39 million at a time: about 2 GB in the driver, 160 GB of temporary files",
         "48 bytes each while they are sorted, 16 on disk"],
        ["falsely repeated keys", "2.7 rows", "64-bit hashes, 1e20 / 2 pairs"],
        ["embedding, N workers at r rows/s each", "10^10 / (N r) s: 28 hours for N r = 100,000 rows/s",
         "linear in rows"],
        ["features, dim 256, float32", "10 TB in about 40,000 files of 256 MiB", "1 KiB a row"],
    ]  # fmt: skip
    return table(["what", "figure", "comes from"], rows)


@block
def join() -> str:
    """Two tables joined in bounded memory."""
    run = last("join")
    found = run.figures
    rows = [
        ["data", f"{found['data_mb']} MiB, {found['rows']:,} rows joined"],
        ["`limits.join_memory_mb`", str(found["join_memory_mb"])],
        ["peak memory", f"{found['peak_rss_mb']} MB, of which {found['peak_rss_before_mb']} MB before the join began"],
        ["rate, one process", f"{found['rows_per_s']:,} rows/s"],
        ["rows that differ from DuckDB's join", str(found["wrong"])],
    ]
    return with_source(table(["two tables of 200,000 keys", ""], rows), run)


@block
def s3_requests() -> str:
    """Requests to S3 and their price."""
    run = last("s3_requests")
    rows = [[name, f"{count:,}"] for name, count in sorted(run.figures["requests_per_million_rows"].items())]
    rows.append(["dollars, at the prices in the script", f"{run.figures['usd_per_million_rows']:.3f}"])
    return with_source(table(["a million rows of two vector inputs", ""], rows), run)


@block
def digest_index() -> str:
    """The index of digests at 10^8 rows."""
    run = last("digest_index")
    found = run.figures
    rows = [
        ["to index them", f"{found['seconds']:.0f} s, {found['megabytes'] / 1024:.1f} GiB of memory at most"],
        ["on disk", f"{found['bytes'] / 1e9:.1f} GB, {found['bytes_per_row']:.0f} bytes a row"],
        ["to look up a shard of 4,096 rows that lie together", f"{found['ms_for_a_shard_that_lies_together']:.0f} ms"],
        ["to look up a shard of 4,096 new rows", f"{found['ms_for_a_shard_of_new_rows']:.0f} ms"],
        [
            "10^9 rows at this rate",
            f"{found['bytes_per_row']:.0f} GB, {found['seconds'] * 10**9 / found['rows'] / 60:.0f} min",
        ],
        ["share of the processor time of a first run with MiniLM", f"{100 * found['share_of_a_first_run']:.2f} %"],
    ]
    return with_source(table([f"{found['rows']:,} digests", ""], rows), run)


@block
def listing() -> str:
    """Folders of pictures listed."""
    run = last("listing")
    rows = []
    for place, shown in (("local", "a local folder"), ("s3", "a bucket of a test server")):
        found, estimate = run.figures[place], run.figures["seconds_of_10^7"][place]
        rows.append([shown, f"{found['rows']:,.0f}", f"{found['seconds']:.1f} s", f"{estimate / 60:.0f} min"])
    return with_source(table(["pictures in", "measured", "listed in", "10^7 at this rate"], rows), run)
