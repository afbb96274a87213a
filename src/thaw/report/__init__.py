"""What a run leaves to be read: results.json, curves, predictions.csv and report.html."""
