from barycenter.infra.dispatch.poison_search import MOST_PROBES, Hunt


def hunt(number, guilty):
    search, probes = Hunt.over(range(number)), 0
    while rows := search.next_probe():
        probes += 1
        search.record(rows, failed=bool(set(rows) & set(guilty)))
    return search, probes


def test_bisection_finds_few_rows_with_few_probes():
    search, probes = hunt(4096, [1234])
    assert search.guilty == [1234]
    assert probes <= 2 * 12 + 2
    search, _ = hunt(1, [0])
    assert search.guilty == [0]
    search, probes = hunt(4096, [])
    assert (search.guilty, probes) == ([], 2)


def test_what_fails_whichever_the_rows_ends_the_search_after_five_probes():
    search, probes = hunt(4096, range(4096))
    assert search.gave_up
    assert (probes, search.guilty) == (5, [])


def test_rows_guilty_in_both_halves_are_found():
    guilty = [0, 17, 682, 2048, 4095]
    search, _ = hunt(4096, guilty)
    assert sorted(search.guilty) == guilty
    assert not search.gave_up


def test_too_many_guilty_rows_end_the_search():
    search, probes = hunt(4096, range(0, 4096, 2))
    assert search.gave_up
    assert probes <= MOST_PROBES


def test_a_row_that_failed_once_is_not_guilty():
    search, failed = Hunt.over(range(8)), set()
    while rows := search.next_probe():
        unlucky = 3 in rows and (len(rows) > 1 or 3 not in failed)
        if rows == (3,):
            failed.add(3)
        search.record(rows, unlucky)
    assert search.guilty == []
