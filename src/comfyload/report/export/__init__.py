"""A run in other tools' formats: CSV, Parquet, Prometheus text, OTLP traces. One file a format."""
