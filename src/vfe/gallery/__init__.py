"""Experiments that run by name: `vfe run NAME`. Nothing is imported before it is asked for."""

from vfe.gallery.job import Job

JOBS: dict[str, Job] = {
    "digits": Job(
        name="digits",
        summary="A hierarchy learns handwritten digits: F by level, hidden pixels, labels, imagination.",
        module="vfe.gallery.digits",
        seconds=120,
        data="x_train, y_train, x_test, y_test; scikit-learn's embedded digits by default",
    ),
}

__all__ = ["JOBS", "Job"]
