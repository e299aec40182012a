"""Train a small classifier; replace it with your own.

Reads the only .csv file of the data folder (numbers, the label in the last column, an optional
header), or, when there is none, the digits that come with scikit-learn.
"""

import argparse
import csv
import json
import os
import sys
from pathlib import Path

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tensorboard.summary import Writer


class BadInput(Exception):
    """A sentence for whoever started the training."""


def read_csv(path):
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    try:
        float(rows[0][0])
    except (IndexError, ValueError):
        rows = rows[1:]
    if not rows:
        raise BadInput(f"{path} holds no rows")
    features, labels = [], []
    for number, row in enumerate(rows, start=1):
        try:
            features.append([float(value) for value in row[:-1]])
        except ValueError as error:
            raise BadInput(f"{path}, data row {number}: {error}")
        if len(row) < 2 or len(row) != len(rows[0]) or not np.isfinite(features[-1]).all():
            raise BadInput(
                f"{path}, data row {number}: expected {max(len(rows[0]), 2)} columns, "
                "finite numbers and a label"
            )
        labels.append(row[-1].strip())
    return np.array(features), np.array(labels)


def load(folder):
    if not folder.is_dir():
        raise BadInput(f"there is no data folder {folder}")
    tables = sorted(folder.glob("*.csv"))
    if len(tables) > 1:
        raise BadInput(f"{folder} holds {len(tables)} .csv files, expected one at most")
    if tables:
        return tables[0].name, *read_csv(tables[0])
    return "scikit-learn's digits", *load_digits(return_X_y=True)


def write(path, save):
    """Save under another name first: whoever looks sees the old file or the whole new one."""
    partial = path.with_name(path.name + ".part")
    save(partial)
    os.replace(partial, path)


def train(args):
    source, x, y = load(args.data)
    classes, counts = np.unique(y, return_counts=True)
    if len(classes) < 2 or counts.min() < 2:
        raise BadInput(f"{source} needs two classes or more, each with two rows or more")
    test_size = max(len(classes), len(y) // 5)
    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=test_size, random_state=args.seed, stratify=y
    )
    print(f"Training on {source}: {len(y_train)} rows, testing on {len(y_test)}")
    scaler = StandardScaler().fit(x_train)
    classifier = SGDClassifier(
        loss="log_loss", learning_rate="constant", eta0=args.learning_rate, random_state=args.seed
    )
    args.results.mkdir(parents=True, exist_ok=True)
    writer = Writer(str(args.results))
    order = np.random.default_rng(args.seed)
    for epoch in range(1, args.epochs + 1):
        shuffled = order.permutation(len(y_train))
        classifier.partial_fit(scaler.transform(x_train[shuffled]), y_train[shuffled], classes)
        accuracy = float(classifier.score(scaler.transform(x_test), y_test))
        writer.add_scalar("accuracy", accuracy, epoch)
        writer.flush()  # TensorBoard shows a training that runs
        print(f"epoch {epoch}/{args.epochs}: accuracy {accuracy:.4f}", flush=True)
    writer.close()
    model = make_pipeline(scaler, classifier)
    metrics = {"accuracy": accuracy, "epochs": args.epochs, "rows": len(y), "data": source}
    write(args.results / "model.joblib", lambda path: joblib.dump(model, path))
    write(args.results / "metrics.json", lambda path: path.write_text(json.dumps(metrics) + "\n"))
    print(f"Saved model.joblib and metrics.json in {args.results}")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../data"))
    parser.add_argument("--results", type=Path, default=Path("../results"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    if args.epochs < 1 or not 0 < args.learning_rate < float("inf") or args.seed < 0:
        parser.error("--epochs and --learning-rate must be above 0, --seed 0 or above")
    try:
        train(args)
    except (BadInput, OSError, UnicodeDecodeError, csv.Error) as error:
        sys.exit(f"train.py: {error}")


if __name__ == "__main__":
    main()
