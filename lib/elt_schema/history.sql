-- The history of the pipeline, kept in the database that it loads: runs, jobs, scripts, and applied definitions.
-- Job rows of status 'published' are written in the transaction that publishes the data, so they never contradict them.

CREATE TABLE IF NOT EXISTS elt.runs (
    run_id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    status      text        NOT NULL CHECK (status IN ('running', 'done', 'failed', 'cancelled', 'lost')),
    run_date    date        NOT NULL,
    started_at  timestamptz NOT NULL,
    finished_at timestamptz,
    jobs        text[]      NOT NULL,
    source      text,
    process     text        NOT NULL,
    error       text
);
-- no comment on the table here: the installer stores the version of these files in it
COMMENT ON COLUMN elt.runs.run_id IS 'Number of the run; its staging tables carry it (elt_staging.r17_products).';
COMMENT ON COLUMN elt.runs.status IS
    'running; done; failed (at least one group kept its old tables); cancelled (Ctrl-C, SIGTERM); lost (killed; the next run noticed it).';
COMMENT ON COLUMN elt.runs.run_date IS 'Day that the run loaded: elt.run_date() in its scripts.';
COMMENT ON COLUMN elt.runs.started_at IS 'When the run took the run lock.';
COMMENT ON COLUMN elt.runs.finished_at IS
    'When the run ended; for a lost run, when the next run noticed it. NULL: it is still running.';
COMMENT ON COLUMN elt.runs.jobs IS 'Jobs of the run, in the order in which they publish.';
COMMENT ON COLUMN elt.runs.source IS 'Project that the rows came from.';
COMMENT ON COLUMN elt.runs.process IS 'Process id and host of the run.';
COMMENT ON COLUMN elt.runs.error IS 'Why the run ended early. Errors of single jobs are in elt.job_runs.';

CREATE TABLE IF NOT EXISTS elt.job_runs (
    run_id           bigint      NOT NULL REFERENCES elt.runs,
    job              text        NOT NULL,
    status           text        NOT NULL CHECK (status IN ('published', 'failed', 'held back')),
    recorded_at      timestamptz NOT NULL,
    rows_loaded      bigint,
    rows_before      bigint,
    source_version   text,
    accepted_shrink  boolean     NOT NULL,
    stage_seconds    numeric,
    publish_seconds  numeric,
    error            text,
    PRIMARY KEY (run_id, job)
);
-- later versions added these: a warehouse that an older version filled gets them here
ALTER TABLE elt.job_runs ADD COLUMN IF NOT EXISTS source_imported_at timestamptz;
ALTER TABLE elt.job_runs ADD COLUMN IF NOT EXISTS unused_columns text[];
ALTER TABLE elt.job_runs ADD COLUMN IF NOT EXISTS accepted_guards text[];
COMMENT ON TABLE elt.job_runs IS 'One row per job of a run that has ended.';
COMMENT ON COLUMN elt.job_runs.run_id IS 'Run, as in elt.runs.';
COMMENT ON COLUMN elt.job_runs.job IS 'Name of the job in elt_jobs.json.';
COMMENT ON COLUMN elt.job_runs.status IS
    'published; failed; held back (another job of its group failed, so its tables kept the old rows).';
COMMENT ON COLUMN elt.job_runs.recorded_at IS 'When the job was published, failed or was held back.';
COMMENT ON COLUMN elt.job_runs.rows_loaded IS 'Rows written to the bronze table. NULL: the job loads no table.';
COMMENT ON COLUMN elt.job_runs.rows_before IS 'Rows in the bronze table before this run.';
COMMENT ON COLUMN elt.job_runs.source_version IS
    'Version of the table in the source at the time of the export. Equal versions have equal content.';
COMMENT ON COLUMN elt.job_runs.source_imported_at IS
    'When the source last imported rows into the table. NULL: the source does not say, or a run of an older version.';
COMMENT ON COLUMN elt.job_runs.unused_columns IS
    'Columns of the source that the bronze table lacks. NULL: none, or a run of an older version.';
COMMENT ON COLUMN elt.job_runs.accepted_shrink IS 'True if accepted_guards contains shrink.';
COMMENT ON COLUMN elt.job_runs.accepted_guards IS
    'Guards that a person accepted for this job (--accept JOB:GUARD). NULL: a run of an older version, see accepted_shrink.';
COMMENT ON COLUMN elt.job_runs.stage_seconds IS 'Seconds from the request for the export to the last staged row.';
COMMENT ON COLUMN elt.job_runs.publish_seconds IS
    'Seconds in the publish transaction: load, scripts and checks of this job.';
COMMENT ON COLUMN elt.job_runs.error IS 'Why the job failed or was held back.';

CREATE TABLE IF NOT EXISTS elt.script_runs (
    run_id    bigint  NOT NULL REFERENCES elt.runs,
    job       text    NOT NULL,
    script    text    NOT NULL,
    seconds   numeric NOT NULL,
    inserted  bigint,
    updated   bigint,
    deleted   bigint,
    unchanged bigint,
    broken_by bigint,
    PRIMARY KEY (run_id, job, script)
);
COMMENT ON TABLE elt.script_runs IS 'One row per script of a published job.';
COMMENT ON COLUMN elt.script_runs.run_id IS 'Run, as in elt.runs.';
COMMENT ON COLUMN elt.script_runs.job IS 'Job that lists the script in elt_jobs.json.';
COMMENT ON COLUMN elt.script_runs.script IS 'Path below sql_scripts, such as silver/products.sql.';
COMMENT ON COLUMN elt.script_runs.seconds IS 'Seconds that the script took.';
COMMENT ON COLUMN elt.script_runs.inserted IS 'Rows that elt.publish_rows inserted. NULL: the script does not call it.';
COMMENT ON COLUMN elt.script_runs.updated IS 'Rows that elt.publish_rows updated. NULL as for inserted.';
COMMENT ON COLUMN elt.script_runs.deleted IS 'Rows that elt.publish_rows deleted. NULL as for inserted.';
COMMENT ON COLUMN elt.script_runs.unchanged IS 'Rows that elt.publish_rows found unchanged. NULL as for inserted.';
COMMENT ON COLUMN elt.script_runs.broken_by IS 'Rows that break the claim of a check. NULL: not a check.';

CREATE TABLE IF NOT EXISTS elt.definitions (
    script     text        PRIMARY KEY,
    script_md5 text        NOT NULL,
    view_md5   text,
    run_id     bigint      NOT NULL,
    applied_at timestamptz NOT NULL
);
COMMENT ON TABLE elt.definitions IS
    'Bronze and gold scripts as last applied in this database. A script that differs is applied again.';
COMMENT ON COLUMN elt.definitions.script IS 'Path below sql_scripts, such as gold/dim_date.sql.';
COMMENT ON COLUMN elt.definitions.script_md5 IS 'md5 of the script text that was applied.';
COMMENT ON COLUMN elt.definitions.view_md5 IS
    'md5 of pg_get_viewdef() after that. It differs if somebody replaced the view by hand.';
COMMENT ON COLUMN elt.definitions.run_id IS 'Run that applied the script.';
COMMENT ON COLUMN elt.definitions.applied_at IS 'When the script was applied.';

CREATE OR REPLACE VIEW elt.recent_runs AS
SELECT
    runs.run_id,
    runs.status,
    runs.started_at,
    round(extract(EPOCH FROM runs.finished_at - runs.started_at), 1) AS seconds,
    count(job_runs.job) FILTER (WHERE job_runs.status = 'published') AS jobs_published,
    count(job_runs.job) FILTER (WHERE job_runs.status <> 'published') AS jobs_not_published,
    sum(job_runs.rows_loaded) FILTER (WHERE job_runs.status = 'published') AS rows_loaded,
    coalesce(runs.error, min(job_runs.error) FILTER (WHERE job_runs.status = 'failed')) AS error
FROM elt.runs AS runs
LEFT JOIN elt.job_runs AS job_runs USING (run_id)
GROUP BY runs.run_id
ORDER BY runs.run_id DESC;
COMMENT ON VIEW elt.recent_runs IS 'One row per run, newest first, with its result.';
COMMENT ON COLUMN elt.recent_runs.run_id IS 'Run, as in elt.runs.';
COMMENT ON COLUMN elt.recent_runs.status IS 'running, done, failed, cancelled or lost; explained in elt.runs.';
COMMENT ON COLUMN elt.recent_runs.started_at IS 'When the run took the run lock.';
COMMENT ON COLUMN elt.recent_runs.seconds IS 'Seconds from start to end. NULL: still running.';
COMMENT ON COLUMN elt.recent_runs.jobs_published IS 'Jobs whose new rows readers can see.';
COMMENT ON COLUMN elt.recent_runs.jobs_not_published IS
    'Jobs that failed or were held back; their tables kept the old rows.';
COMMENT ON COLUMN elt.recent_runs.rows_loaded IS 'Rows written to bronze tables by published jobs.';
COMMENT ON COLUMN elt.recent_runs.error IS 'Why the run ended early, else the error of a failed job. NULL: no error.';

CREATE OR REPLACE VIEW elt.job_status AS
WITH

latest AS (
    SELECT DISTINCT ON (job) job, run_id, status, recorded_at, error
    FROM elt.job_runs
    ORDER BY job ASC, run_id DESC
),

published AS (
    SELECT DISTINCT ON (job) job, recorded_at, rows_loaded, stage_seconds, publish_seconds
    FROM elt.job_runs
    WHERE status = 'published'
    ORDER BY job ASC, run_id DESC
)

SELECT
    latest.job,
    latest.status,
    published.recorded_at AS published_at,
    published.rows_loaded,
    published.stage_seconds,
    published.publish_seconds,
    latest.run_id,
    latest.error
FROM latest
LEFT JOIN published USING (job)
ORDER BY latest.job;
COMMENT ON VIEW elt.job_status IS 'One row per job: how its latest run ended, and when its tables were last published.';
COMMENT ON COLUMN elt.job_status.job IS 'Name of the job in elt_jobs.json.';
COMMENT ON COLUMN elt.job_status.status IS 'Result of its latest run: published, failed or held back.';
COMMENT ON COLUMN elt.job_status.published_at IS 'When its tables were last published. NULL: never.';
COMMENT ON COLUMN elt.job_status.rows_loaded IS 'Rows that were loaded then. NULL: the job loads no table.';
COMMENT ON COLUMN elt.job_status.stage_seconds IS 'Seconds of export and staging then.';
COMMENT ON COLUMN elt.job_status.publish_seconds IS 'Seconds in the publish transaction then.';
COMMENT ON COLUMN elt.job_status.run_id IS 'Latest run of the job, published or not.';
COMMENT ON COLUMN elt.job_status.error IS
    'Why the latest run of the job failed or was held back. NULL: it was published.';
