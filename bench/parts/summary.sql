-- What of comfyload's summary SQL can say, from the same journal. The variable `records` is its path.
-- Left out: intervals, the autocorrelation behind them, drift, cold starts, and the findings made of these.

CREATE TEMP TABLE lines AS
SELECT line, "index", workflow, warmup, due, book, censored, unnest(execution)
FROM read_json(getvariable('records'), format = 'newline_delimited', columns = {
  line: 'VARCHAR', "index": 'BIGINT', prompt_id: 'VARCHAR', workflow: 'VARCHAR', warmup: 'BOOLEAN', due: 'DOUBLE',
  book: 'BIGINT', censored: 'BOOLEAN',
  execution: 'STRUCT(outcome VARCHAR, sent DOUBLE, acknowledged DOUBLE, done DOUBLE, seen_by VARCHAR,
    done_within_s DOUBLE, server STRUCT(create_ms BIGINT, start_ms BIGINT, end_ms BIGINT), nodes VARCHAR[][],
    cached VARCHAR[], outputs STRUCT(node VARCHAR, kind VARCHAR, count BIGINT, files VARCHAR[])[],
    failure STRUCT(kind VARCHAR, type VARCHAR, message VARCHAR, node_class VARCHAR), executions BIGINT,
    left_on_server VARCHAR)'
});

CREATE TEMP VIEW jobs AS
SELECT *,
  done - due AS latency,
  done - sent AS latency_sent,
  (server.start_ms - server.create_ms) / 1000 AS queue_wait,
  (server.end_ms - server.start_ms) / 1000 AS execution,
  acknowledged - sent AS acknowledge,
  CASE WHEN list_has_all(coalesce(cached, []), ['9']) THEN 'cached'
       WHEN list_has_any(coalesce(cached, []), ['3', '9']) THEN 'partial' ELSE 'fresh' END AS cache
FROM lines WHERE line = 'record' AND NOT warmup;

-- How jobs ended; which have two ends, or none; how often the server started one.
SELECT warmup, outcome, censored, left_on_server, count(*), count(*) FILTER (executions > 1)
FROM lines WHERE line = 'record' GROUP BY ALL;

SELECT count(*) - count(DISTINCT "index") FROM lines WHERE line = 'record';

SELECT count(*) FROM lines AS sent ANTI JOIN lines AS ended ON sent."index" = ended."index" AND ended.line = 'record'
WHERE sent.line = 'sent';

SELECT coalesce(failure.kind, outcome), failure.type, failure.node_class, count(*), first(failure.message), min("index")
FROM jobs WHERE outcome <> 'completed' GROUP BY ALL;

-- Durations: of all, and by workflow.
SELECT workflow,
  quantile_cont(latency, [0.5, 0.9, 0.95, 0.99]), quantile_disc(latency, [0.5, 0.9, 0.95, 0.99]),
  avg(latency), stddev(latency), max(latency),
  quantile_cont(execution, [0.5, 0.9, 0.95]), avg(execution), stddev(execution), max(execution)
FROM jobs WHERE outcome = 'completed' GROUP BY GROUPING SETS ((), (workflow));

SELECT
  quantile_cont(latency_sent, [0.5, 0.9, 0.95, 0.99]), quantile_disc(latency_sent, [0.5, 0.9, 0.95, 0.99]),
  avg(latency_sent), stddev(latency_sent), max(latency_sent),
  quantile_cont(queue_wait, [0.5, 0.95]), avg(queue_wait), stddev(queue_wait), max(queue_wait),
  quantile_cont(acknowledge, [0.5, 0.95]), avg(acknowledge), stddev(acknowledge), max(acknowledge)
FROM jobs WHERE outcome = 'completed';

SELECT quantile_cont(CASE WHEN outcome = 'completed' THEN latency ELSE 'inf'::DOUBLE END, [0.5, 0.9, 0.95, 0.99])
FROM jobs;

-- Rates, lateness, and ends that were only polled.
SELECT count(*), min(due), max(due), max(done), min(sent), max(sent), avg(sent - due), max(sent - due),
  quantile_cont(sent - due, 0.99), count(*) FILTER (seen_by = 'history'), max(done_within_s)
FROM jobs;

-- What came from the cache.
SELECT cache, count(*), avg(latency), stddev(latency), median(latency)
FROM jobs WHERE outcome = 'completed' GROUP BY cache;

-- Images: by kind and type, and those whose name an earlier job had returned.
SELECT kind, count(DISTINCT "index"), sum(count)
FROM (SELECT "index", unnest(outputs, recursive := true) FROM jobs WHERE outcome = 'completed') GROUP BY kind;

SELECT split_part(file, '/', 1), count(*), count(*) - count(DISTINCT file)
FROM (SELECT unnest(flatten(list_transform(outputs, lambda output: output.files))) AS file
      FROM jobs WHERE outcome = 'completed') GROUP BY ALL;

-- How long each node ran, and which share of the execution that was.
SELECT workflow, span[1] AS node, count(*), avg(seconds), stddev(seconds),
  quantile_cont(seconds, [0.5, 0.95]), sum(seconds)
FROM (SELECT workflow, span, span[3]::DOUBLE - span[2]::DOUBLE AS seconds
      FROM (SELECT workflow, unnest(nodes) AS span FROM jobs WHERE outcome = 'completed'))
GROUP BY ALL;

-- By the server's order: executions side by side, its pauses, and jobs after one of their own workflow.
SELECT count(*) FILTER (server.start_ms < ended),
  avg(server.start_ms - previous) FILTER (server.create_ms <= previous),
  avg(execution) FILTER (workflow = before), avg(execution) FILTER (workflow <> before)
FROM (SELECT *,
        max(server.end_ms) OVER (ORDER BY server.start_ms ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS ended,
        lag(server.end_ms) OVER (ORDER BY server.start_ms) AS previous,
        lag(workflow) OVER (ORDER BY server.start_ms) AS before
      FROM (SELECT workflow, server, execution FROM jobs));
