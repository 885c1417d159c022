-- What of comfyload's summary SQL can say, from the same journal. The variable `records` is its path.
-- Left out: intervals, drift, saturation, cold starts, the dependence of quantiles, and the findings made of these.

CREATE TEMP MACRO is_clock(stamp) AS
  stamp IS NULL OR (stamp >= 0 AND stamp < 1e14 AND NOT (stamp >= 1e9 AND stamp < 1e11));

CREATE TEMP MACRO fits(starts, ends, most) AS starts IS NULL OR ends IS NULL OR ends - starts BETWEEN 0 AND most;

-- Of each line what the rest needs, and which of the server's stamps are plausible by our own clock.
CREATE TEMP TABLE lines AS
SELECT * EXCLUDE (execution, most, is_known, wait, run, whole),
  execution.* EXCLUDE (server),
  CASE WHEN is_known AND wait AND (whole OR NOT run) THEN execution.server.create_ms END AS create_ms,
  CASE WHEN is_known AND (wait <> run OR wait AND run AND whole) THEN execution.server.start_ms END AS start_ms,
  CASE WHEN is_known AND run AND (whole OR NOT wait) THEN execution.server.end_ms END AS end_ms,
  execution.server.end_ms AS stamped_end_ms,
  NOT (is_known AND wait AND run AND whole) AS implausible
FROM (
  SELECT *,
    is_clock(execution.server.create_ms) AND is_clock(execution.server.start_ms)
      AND is_clock(execution.server.end_ms) AS is_known,
    fits(execution.server.create_ms, execution.server.start_ms, most) AS wait,
    fits(execution.server.start_ms, execution.server.end_ms, most) AS run,
    fits(execution.server.create_ms, execution.server.end_ms, most) AS whole
  FROM (
    SELECT *, coalesce(1020 * (execution.done - coalesce(execution.sent, due)) + 20
        + CASE execution.outcome WHEN 'completed' THEN 0 ELSE 60000 END, 'inf'::DOUBLE) AS most
    FROM read_json(getvariable('records'), format = 'newline_delimited', columns = {
      line: 'VARCHAR', "index": 'BIGINT', workflow: 'VARCHAR', warmup: 'BOOLEAN', due: 'DOUBLE',
      values: 'MAP(VARCHAR, JSON)', book: 'BIGINT', censored: 'BOOLEAN',
      execution: 'STRUCT(outcome VARCHAR, sent DOUBLE, acknowledged DOUBLE, started DOUBLE, done DOUBLE,
        seen_by VARCHAR, done_within_s DOUBLE, server STRUCT(create_ms BIGINT, start_ms BIGINT, end_ms BIGINT),
        nodes VARCHAR[][], cached VARCHAR[],
        outputs STRUCT(node VARCHAR, kind VARCHAR, count BIGINT, files VARCHAR[], animated BOOLEAN)[],
        failure STRUCT(kind VARCHAR, type VARCHAR, message VARCHAR, node_class VARCHAR),
        fetches STRUCT(file VARCHAR, bytes BIGINT, seconds DOUBLE, problem VARCHAR)[], executions BIGINT,
        held_s DOUBLE, left_on_server VARCHAR)'
    })
  )
);

CREATE TEMP VIEW jobs AS
SELECT *,
  done - due AS latency,
  done - sent AS latency_sent,
  (start_ms - create_ms) / 1000 AS queue_wait,
  (end_ms - start_ms) / 1000 AS execution,
  acknowledged - sent AS acknowledge,
  CASE WHEN list_has_all(coalesce(cached, []), ['9']) THEN 'cached'
       WHEN list_has_any(coalesce(cached, []), ['3', '9']) THEN 'partial' ELSE 'fresh' END AS cache
FROM lines WHERE line = 'record' AND NOT warmup;

-- How jobs ended; which have two ends, or none; how often the server started one; implausible stamps.
SELECT warmup, outcome, censored, left_on_server, count(*), count(*) FILTER (executions > 1)
FROM lines WHERE line = 'record' GROUP BY ALL;

SELECT count(*) - count(DISTINCT "index") FROM lines WHERE line = 'record';

SELECT count(*) FROM lines AS sent ANTI JOIN lines AS ended ON sent."index" = ended."index" AND ended.line = 'record'
WHERE sent.line = 'sent';

SELECT coalesce(failure.kind, outcome), failure.type, failure.node_class, count(*), first(failure.message), min("index")
FROM jobs WHERE outcome <> 'completed' GROUP BY ALL;

SELECT count(*), min("index") FROM lines WHERE line = 'record' AND implausible;

-- Held back before they were sent, and downloads of outputs.
SELECT count(*), sum(held_s), max(held_s), count(*) FILTER (outcome = 'dropped') FROM jobs WHERE held_s > 0;

SELECT problem, count(*), sum(bytes), sum(seconds)
FROM (SELECT unnest(fetches, recursive := true) FROM jobs WHERE outcome = 'completed' AND len(fetches) > 0) GROUP BY ALL;

-- Durations: of all, and by workflow.
SELECT workflow,
  quantile_cont(latency, [0.5, 0.9, 0.95, 0.99]), quantile_disc(latency, [0.5, 0.9, 0.95, 0.99]),
  avg(latency), stddev(latency), skewness(latency), max(latency),
  quantile_cont(execution, [0.5, 0.9, 0.95]), avg(execution), stddev(execution), skewness(execution), max(execution)
FROM jobs WHERE outcome = 'completed' GROUP BY GROUPING SETS ((), (workflow));

SELECT
  quantile_cont(latency_sent, [0.5, 0.9, 0.95, 0.99]), quantile_disc(latency_sent, [0.5, 0.9, 0.95, 0.99]),
  avg(latency_sent), stddev(latency_sent), skewness(latency_sent), max(latency_sent),
  quantile_cont(queue_wait, [0.5, 0.95]), avg(queue_wait), stddev(queue_wait), skewness(queue_wait), max(queue_wait),
  quantile_cont(acknowledge, [0.5, 0.95]), avg(acknowledge), stddev(acknowledge), skewness(acknowledge),
  max(acknowledge)
FROM jobs WHERE outcome = 'completed';

SELECT quantile_cont(CASE WHEN outcome = 'completed' THEN latency ELSE 'inf'::DOUBLE END, [0.5, 0.9, 0.95, 0.99])
FROM jobs;

-- How far a mean's values depend on those before them: three lags, which is where independent jobs show that they are.
SELECT
  covar_pop(latency, latency_1), covar_pop(latency, latency_2), covar_pop(latency, latency_3),
  covar_pop(execution, execution_1), covar_pop(execution, execution_2), covar_pop(execution, execution_3)
FROM (SELECT latency, execution,
        lag(latency, 1) OVER by_end AS latency_1, lag(latency, 2) OVER by_end AS latency_2,
        lag(latency, 3) OVER by_end AS latency_3, lag(execution, 1) OVER by_end AS execution_1,
        lag(execution, 2) OVER by_end AS execution_2, lag(execution, 3) OVER by_end AS execution_3
      FROM jobs WHERE outcome = 'completed' WINDOW by_end AS (ORDER BY done));

-- Rates, lateness, and ends that were only polled.
SELECT count(*), min(due), max(due), max(done), min(sent), max(sent), avg(sent - due), max(sent - due),
  quantile_cont(sent - due, 0.99), count(*) FILTER (seen_by = 'history'), max(done_within_s)
FROM jobs;

-- The server's clock against ours: by the slopes between the medians of 200 blocks of jobs.
WITH blocks AS (
  SELECT median(done) AS x, median(stamped_end_ms / 1000 - done) AS y
  FROM (SELECT done, stamped_end_ms, ntile(200) OVER (ORDER BY done) AS block
        FROM lines WHERE outcome = 'completed' AND seen_by = 'events' AND stamped_end_ms > 0)
  GROUP BY block
)
SELECT median((b.y - a.y) / (b.x - a.x)) FROM blocks AS a JOIN blocks AS b ON a.x < b.x;

-- What came from the cache.
SELECT cache, count(*), avg(latency), stddev(latency), median(latency)
FROM jobs WHERE outcome = 'completed' GROUP BY cache;

-- Files: by key; by kind and folder, and those whose name an earlier job had returned.
SELECT kind, count(DISTINCT "index"), sum(count)
FROM (SELECT "index", unnest(outputs, recursive := true) FROM jobs WHERE outcome = 'completed') GROUP BY kind;

SELECT split_part(file, '/', 1), lower(regexp_extract(file, '\.[^./]*$')), count(*), count(*) - count(DISTINCT file)
FROM (SELECT unnest(flatten(list_transform(outputs, lambda output: output.files))) AS file
      FROM jobs WHERE outcome = 'completed') GROUP BY ALL;

-- Jobs that made less at a node than their like, by the switches and small numbers among their values.
SELECT workflow, choice, shape, count(*), min("index")
FROM (SELECT workflow, "index",
        list_transform(outputs, lambda output: (output.node, output.kind, len(output.files),
          len(list_filter(output.files, lambda file: starts_with(file, 'output/'))))) AS shape,
        list_filter(map_entries(values), lambda pair: pair.value IN ('true', 'false')
          OR NOT suffix(pair.key, 'seed') AND try_cast(pair.value AS BIGINT) BETWEEN -1024 AND 1024) AS choice
      FROM jobs WHERE outcome = 'completed' AND cache = 'fresh')
GROUP BY ALL;

-- How long each node ran, by the server's clock at most until the job's end, and which share of the execution that was.
SELECT workflow, span[1] AS node, count(*), avg(seconds), stddev(seconds), skewness(seconds),
  quantile_cont(seconds, [0.5, 0.95]), sum(seconds)
FROM (SELECT workflow, span,
        least(span[3]::DOUBLE, CASE WHEN done > started + (took_ms + 20) / 1000 THEN
          greatest(span[2]::DOUBLE, started + took_ms / 1000) END) - span[2]::DOUBLE AS seconds
      FROM (SELECT workflow, started, done, end_ms - start_ms AS took_ms, unnest(nodes) AS span
            FROM jobs WHERE outcome = 'completed'))
GROUP BY ALL;

-- By the server's order: executions side by side, its pauses, and jobs after one of their own workflow.
SELECT count(*) FILTER (start_ms < ended),
  avg(start_ms - previous) FILTER (create_ms <= previous),
  avg(execution) FILTER (workflow = before), avg(execution) FILTER (workflow <> before)
FROM (SELECT *,
        max(end_ms) OVER (ORDER BY start_ms ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS ended,
        lag(end_ms) OVER (ORDER BY start_ms) AS previous,
        lag(workflow) OVER (ORDER BY start_ms) AS before
      FROM (SELECT workflow, create_ms, start_ms, end_ms, execution FROM jobs));
