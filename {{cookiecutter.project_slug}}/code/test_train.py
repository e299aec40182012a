"""Run with: cd code && python -m unittest"""

import json
import tempfile
import unittest
from pathlib import Path

import joblib

import train


class TrainTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.data = Path(folder.name, "data")
        self.results = Path(folder.name, "results")
        self.data.mkdir()

    def run_training(self, *options):
        train.main(["--data", str(self.data), "--results", str(self.results), *options])

    def metrics(self):
        return json.loads((self.results / "metrics.json").read_text())

    def test_learns_the_digits(self):
        self.run_training("--epochs", "3")

        self.assertGreater(self.metrics()["accuracy"], 0.8)
        self.assertTrue(list(self.results.glob("events.out.tfevents.*")))

    def test_learns_a_table_of_ones_own(self):
        rows = [f"{i % 2},{i},{'yes' if i % 2 else 'no'}" for i in range(40)]
        (self.data / "own.csv").write_text("\n".join(["odd,count,answer", *rows]))

        self.run_training()

        model = joblib.load(self.results / "model.joblib")
        self.assertEqual(list(model.predict([[1, 7], [0, 8]])), ["yes", "no"])

    def test_refuses_a_broken_table_in_one_line(self):
        (self.data / "own.csv").write_text("1,2,a\n1,b,b\n")

        with self.assertRaises(SystemExit) as refusal:
            self.run_training()

        self.assertIn("own.csv, data row 2", str(refusal.exception))


if __name__ == "__main__":
    unittest.main()
