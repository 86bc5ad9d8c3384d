"""What is told when MLflow fails; the mirror itself is tested with real runs of the flow."""

from mlflow.exceptions import MlflowException

from tasks.core.tracking.mirror import reason


def test_reason_is_one_line_without_the_statement_when_the_database_fails() -> None:
    error = MlflowException(
        "(sqlite3.OperationalError) database is\nlocked [SQL: INSERT INTO runs\nVALUES ('x')]"
    )
    assert reason(error) == "(sqlite3.OperationalError) database is locked"


def test_reason_says_what_to_do_when_the_disk_is_full() -> None:
    error = MlflowException("(sqlite3.OperationalError) database or disk is full [SQL: INSERT INTO runs]")
    assert reason(error) == "the disk is full: free some space and run again"
