-- gold.load_status: which day does gold hold, since when, and how did the last run end?  Always exactly one row.
-- Reads silver.loaded_days, elt.runs, elt.job_runs, elt.script_runs, elt.recent_runs, elt.job_status.
-- A view reads with the rights of its owner, so readers need no rights to schema elt.

CREATE OR REPLACE VIEW gold.load_status AS
WITH

today AS (
    SELECT max(day) AS day FROM silver.loaded_days WHERE is_current
),

-- Looked up by script, because jobs may be renamed.
published AS (
    SELECT job_runs.run_id, job_runs.recorded_at AS published_at
    FROM elt.script_runs
    INNER JOIN elt.job_runs ON job_runs.run_id = script_runs.run_id AND job_runs.job = script_runs.job
    WHERE script_runs.script = 'silver/loaded_days.sql' AND job_runs.status = 'published'
    ORDER BY job_runs.run_id DESC
    LIMIT 1
),

-- Guards that a person accepted in that run, such as a missing column.  Readers see them, because numbers may be wrong.
accepted AS (
    SELECT string_agg(job_runs.job || ':' || guards.guard, ', ' ORDER BY job_runs.job, guards.guard) AS guards
    FROM published
    INNER JOIN elt.job_runs ON job_runs.run_id = published.run_id
    CROSS JOIN unnest(job_runs.accepted_guards) AS guards (guard)
),

loading_jobs AS (
    SELECT DISTINCT ON (script) job
    FROM elt.script_runs
    WHERE script IN ('silver/products.sql', 'silver/stock_levels.sql')
    ORDER BY script ASC, run_id DESC
),

imported AS (
    SELECT DISTINCT ON (job_runs.job) job_runs.source_imported_at
    FROM elt.job_runs
    INNER JOIN loading_jobs ON loading_jobs.job = job_runs.job
    WHERE job_runs.status = 'published' AND job_runs.rows_loaded IS NOT NULL
    ORDER BY job_runs.job ASC, job_runs.run_id DESC
),

sources AS (
    SELECT CASE WHEN bool_and(source_imported_at IS NOT NULL) THEN min(source_imported_at) END AS imported_at
    FROM imported
),

-- The first line of the error is enough: it says what is wrong.
last_run AS (
    SELECT run_id, kind, status, finished_at, substring(error, '^[^\n\v\f\r\u0085\u2028\u2029]*') AS error
    FROM elt.recent_runs
    WHERE status <> 'running'
    ORDER BY run_id DESC
    LIMIT 1
),

-- Jobs that failed earlier and were not published since.  A job is gone if a later run had all other jobs of that run.
open_failures AS (
    SELECT
        string_agg(
            format(
                '%s failed in run %s: %s',
                job_status.job,
                job_status.run_id,
                substring(job_status.error, '^[^\n\v\f\r\u0085\u2028\u2029]*')
            ),
            '; ' ORDER BY job_status.run_id, job_status.job
        ) AS sentence
    FROM elt.job_status
    INNER JOIN elt.runs ON runs.run_id = job_status.run_id
    INNER JOIN last_run ON last_run.run_id > job_status.run_id
    WHERE job_status.status = 'failed'
        AND NOT EXISTS (
            SELECT FROM elt.runs AS later
            WHERE later.run_id > job_status.run_id
                AND later.kind <> 'preview'
                AND cardinality(runs.jobs) > 1
                AND later.jobs @> array_remove(runs.jobs, job_status.job)
                AND array_position(later.jobs, job_status.job) IS NULL
        )
)

SELECT
    today.day AS date_key,
    published.published_at,
    sources.imported_at AS sources_imported_at,
    last_run.status AS last_run_status,
    last_run.finished_at AS last_run_ended_at,
    last_run.error AS last_run_error,
    concat(
        'gold holds ',
        coalesce(to_char(today.day, 'YYYY-MM-DD'), 'nothing yet'),
        ', loaded ' || to_char(published.published_at, 'YYYY-MM-DD HH24:MI TZ'),
        ', accepted by hand: ' || accepted.guards,
        '; ',
        CASE
            WHEN last_run.kind = 'undo' THEN concat('a later load was taken back', ', and ' || open_failures.sentence)
            WHEN last_run.status = 'done' THEN concat('the last run succeeded', ', but ' || open_failures.sentence)
            WHEN last_run.status = 'failed' THEN concat('the last run failed', ': ' || last_run.error)
            WHEN last_run.status = 'cancelled' THEN 'the last run was stopped'
            WHEN last_run.status = 'lost' THEN 'the last run was killed'
            ELSE 'no run has ended yet'
        END
    ) AS sentence
FROM today
CROSS JOIN sources
CROSS JOIN accepted
CROSS JOIN open_failures
LEFT JOIN published ON true
LEFT JOIN last_run ON true;

COMMENT ON VIEW gold.load_status IS
    'Exactly one row: which day gold holds, how old the data are, how the last run ended, and all of it in one sentence.';
COMMENT ON COLUMN gold.load_status.date_key IS
    'Day that gold holds, as in gold.dim_date. NULL: nothing was loaded yet.';
COMMENT ON COLUMN gold.load_status.published_at IS
    'When that day was published. NULL: the pipeline has published no inventory yet.';
COMMENT ON COLUMN gold.load_status.sources_imported_at IS
    'When Keboola imported the products and the stock that gold holds, the older of the two. NULL: not known.';
COMMENT ON COLUMN gold.load_status.last_run_status IS
    'Status of the newest run that has ended: done; failed (at least one group of jobs kept its old tables); cancelled (stopped by a person or the system); lost (killed). NULL: no run has ended.';
COMMENT ON COLUMN gold.load_status.last_run_ended_at IS
    'When that run ended; for a lost run, when the next run noticed it, else NULL.';
COMMENT ON COLUMN gold.load_status.last_run_error IS 'First line of its error. NULL: no error.';
COMMENT ON COLUMN gold.load_status.sentence IS
    'All of this in one sentence; after a run that succeeded also which jobs failed before and were not published since. Times are in the time zone of your session.';
