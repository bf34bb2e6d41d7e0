"""What a suspicious or hostile user runs: detectors, filters, cleaning, robust training, compression, distillation."""
