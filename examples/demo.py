"""The demo: five damaged photos, each restored by the expert for its damage. Runs offline, on the CPU."""

from pathlib import Path

import clareo
from clareo.batch import Job, run
from clareo.report import write_report

HERE = Path(__file__).parent
OUT = HERE / "out"
PLANS = {
    "noisy.png": {"weights": {"denoise": 1.0}},
    "shaken.png": {"weights": {"motion": 1.0}},
    "out-of-focus.png": {"weights": {"defocus": 1.0}},
    "small.png": {"weights": {"sr": 1.0}, "upscale": 4},
    "blocky.png": {"weights": {"sr": 1.0}},
}


def main() -> None:
    """Restore, print one line a photo, write the report."""
    system = clareo.load_system("unires")
    jobs = [
        Job(HERE / "photos" / name, OUT / name, OUT / f"{Path(name).stem}.clareo.json", options)
        for name, options in PLANS.items()
    ]
    outcomes = []
    for outcome in run(jobs, system, overwrite=True, thumbnails=480):
        outcomes.append(outcome)
        done = outcome.restoration
        told = outcome.error if done is None else f"{outcome.job.target.relative_to(HERE.parent)}  {done.seconds:.1f} s"
        print(told, flush=True)
    print(write_report(outcomes, OUT / "report.html").relative_to(HERE.parent))
    if any(outcome.error for outcome in outcomes):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
