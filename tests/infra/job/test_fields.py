import datetime

import pytest
from pydantic import TypeAdapter, ValidationError

from barycenter.infra.job.fields import Date

DATE: TypeAdapter[datetime.date] = TypeAdapter(Date)


@pytest.mark.parametrize("given", ["2024-01-31", datetime.date(2024, 1, 31)])
def test_a_date_is_one_or_its_text(given: object) -> None:
    assert DATE.validate_python(given) == datetime.date(2024, 1, 31)


@pytest.mark.parametrize(
    "given", ["2024-02-31", "20240131", "2024-W05-3", "yesterday", 20240131, datetime.datetime(2024, 1, 31, 12), None]
)
def test_what_is_no_date_is_refused(given: object) -> None:
    with pytest.raises(ValidationError, match="must be a date such as 2024-01-31"):
        DATE.validate_python(given)
