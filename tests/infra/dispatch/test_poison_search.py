from barycenter.infra.dispatch.poison_search import MOST_TRIALS, PoisonSearch


def search_among(number, guilty):
    search, trials = PoisonSearch.over(range(number)), 0
    while rows := search.next_trial():
        trials += 1
        search.record(rows, failed=bool(set(rows) & set(guilty)))
    return search, trials


def test_bisection_finds_few_rows_with_few_trials():
    search, trials = search_among(4096, [1234])
    assert search.guilty == [1234]
    assert trials <= 2 * 12 + 2
    search, trials = search_among(1, [0])
    assert (search.guilty, trials) == ([0], 2)
    search, trials = search_among(4096, [])
    assert (search.guilty, trials) == ([], 2)


def test_what_fails_whichever_the_rows_ends_the_search_after_five_trials():
    search, trials = search_among(4096, range(4096))
    assert search.gave_up
    assert (trials, search.guilty) == (5, [])


def test_rows_guilty_in_both_halves_are_found():
    guilty = [0, 17, 682, 2048, 4095]
    search, _ = search_among(4096, guilty)
    assert sorted(search.guilty) == guilty
    assert not search.gave_up


def test_too_many_guilty_rows_end_the_search():
    search, trials = search_among(4096, range(0, 4096, 2))
    assert search.gave_up
    assert trials <= MOST_TRIALS


def test_a_row_that_failed_once_is_not_guilty():
    search, failed = PoisonSearch.over(range(8)), set()
    while rows := search.next_trial():
        unlucky = 3 in rows and (len(rows) > 1 or 3 not in failed)
        if rows == (3,):
            failed.add(3)
        search.record(rows, unlucky)
    assert search.guilty == []
