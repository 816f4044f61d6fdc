-- What the pipeline remembers in the database that it loads: runs, jobs, scripts, and the definitions it applied.
-- Job rows of status 'published' are written in the very transaction that published the data.

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
-- the table's comment says which version of these files is installed
COMMENT ON COLUMN elt.runs.run_id IS 'Number of the run; staging tables carry it (elt_staging.r17_products).';
COMMENT ON COLUMN elt.runs.status IS 'running; done; failed (a group stayed as it was); cancelled (Ctrl-C, SIGTERM); lost (killed, found by the next run).';
COMMENT ON COLUMN elt.runs.run_date IS 'The day that the run loaded: what its scripts read as elt.run_date().';
COMMENT ON COLUMN elt.runs.started_at IS 'When the run took the lock.';
COMMENT ON COLUMN elt.runs.finished_at IS 'When the run ended; for a lost one, when that was noticed.';
COMMENT ON COLUMN elt.runs.jobs IS 'Jobs of the run, in the order in which they publish.';
COMMENT ON COLUMN elt.runs.source IS 'Which project the rows came from.';
COMMENT ON COLUMN elt.runs.process IS 'Process and host of the run.';
COMMENT ON COLUMN elt.runs.error IS 'Why the run ended early; job errors stand in elt.job_runs.';

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
-- of later versions: a warehouse that an older one filled gains them here
ALTER TABLE elt.job_runs ADD COLUMN IF NOT EXISTS source_imported_at timestamptz;
ALTER TABLE elt.job_runs ADD COLUMN IF NOT EXISTS unused_columns text[];
ALTER TABLE elt.job_runs ADD COLUMN IF NOT EXISTS accepted_guards text[];
COMMENT ON TABLE elt.job_runs IS 'One row per job of a run that has ended.';
COMMENT ON COLUMN elt.job_runs.run_id IS 'The run.';
COMMENT ON COLUMN elt.job_runs.job IS 'Name in elt_jobs.json.';
COMMENT ON COLUMN elt.job_runs.status IS 'published; failed; held back (another job of its group failed, so its tables stayed as they were).';
COMMENT ON COLUMN elt.job_runs.recorded_at IS 'When the job was published or given up.';
COMMENT ON COLUMN elt.job_runs.rows_loaded IS 'Rows put into the bronze table; NULL for a job that loaded nothing.';
COMMENT ON COLUMN elt.job_runs.rows_before IS 'Rows that the bronze table held before.';
COMMENT ON COLUMN elt.job_runs.source_version IS 'What the source said of the table when it was exported; equal texts mean equal content.';
COMMENT ON COLUMN elt.job_runs.source_imported_at IS 'When the source last imported rows into the table; NULL where it does not say, and for runs of older versions.';
COMMENT ON COLUMN elt.job_runs.unused_columns IS 'Columns of the source that the bronze table does not have; NULL: none, or a run of an older version.';
COMMENT ON COLUMN elt.job_runs.accepted_shrink IS 'Whether shrink is among accepted_guards.';
COMMENT ON COLUMN elt.job_runs.accepted_guards IS 'Guards that a person accepted for this job (--accept JOB:GUARD); NULL for runs of older versions, see accepted_shrink.';
COMMENT ON COLUMN elt.job_runs.stage_seconds IS 'Seconds from asking for the export to its last staged row.';
COMMENT ON COLUMN elt.job_runs.publish_seconds IS 'Seconds inside the publish transaction: scripts, load and checks of this job.';
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
COMMENT ON COLUMN elt.script_runs.run_id IS 'The run.';
COMMENT ON COLUMN elt.script_runs.job IS 'The job that named the script.';
COMMENT ON COLUMN elt.script_runs.script IS 'Path below sql_scripts.';
COMMENT ON COLUMN elt.script_runs.seconds IS 'How long it ran.';
COMMENT ON COLUMN elt.script_runs.inserted IS 'Rows that elt.publish_rows inserted.';
COMMENT ON COLUMN elt.script_runs.updated IS 'Rows that elt.publish_rows changed.';
COMMENT ON COLUMN elt.script_runs.deleted IS 'Rows that elt.publish_rows removed.';
COMMENT ON COLUMN elt.script_runs.unchanged IS 'Rows that elt.publish_rows left alone.';
COMMENT ON COLUMN elt.script_runs.broken_by IS 'For a check: how many rows break its claim.';

CREATE TABLE IF NOT EXISTS elt.definitions (
    script     text        PRIMARY KEY,
    script_md5 text        NOT NULL,
    view_md5   text,
    run_id     bigint      NOT NULL,
    applied_at timestamptz NOT NULL
);
COMMENT ON TABLE elt.definitions IS 'Bronze and gold scripts as last applied here; one that differs is applied again.';
COMMENT ON COLUMN elt.definitions.script IS 'Path below sql_scripts.';
COMMENT ON COLUMN elt.definitions.script_md5 IS 'md5 of the text that was applied.';
COMMENT ON COLUMN elt.definitions.view_md5 IS 'md5 of pg_get_viewdef() right after; differs when somebody replaced the view by hand.';
COMMENT ON COLUMN elt.definitions.run_id IS 'The run that applied it.';
COMMENT ON COLUMN elt.definitions.applied_at IS 'When it was applied.';

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
COMMENT ON VIEW elt.recent_runs IS 'One row per run, the newest first: what became of it.';
COMMENT ON COLUMN elt.recent_runs.run_id IS 'Number of the run.';
COMMENT ON COLUMN elt.recent_runs.status IS 'running, done, failed, cancelled or lost; see elt.runs.';
COMMENT ON COLUMN elt.recent_runs.started_at IS 'When the run took the lock.';
COMMENT ON COLUMN elt.recent_runs.seconds IS 'How long it took.';
COMMENT ON COLUMN elt.recent_runs.jobs_published IS 'Jobs whose tables were brought up to date.';
COMMENT ON COLUMN elt.recent_runs.jobs_not_published IS 'Jobs whose tables stayed as they were.';
COMMENT ON COLUMN elt.recent_runs.rows_loaded IS 'Rows put into bronze tables.';
COMMENT ON COLUMN elt.recent_runs.error IS 'What went wrong first.';

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
COMMENT ON VIEW elt.job_status IS 'One row per job: how its latest run ended, and how old what people read is.';
COMMENT ON COLUMN elt.job_status.job IS 'Name in elt_jobs.json.';
COMMENT ON COLUMN elt.job_status.status IS 'How the latest run of the job ended.';
COMMENT ON COLUMN elt.job_status.published_at IS 'When its tables were last brought up to date.';
COMMENT ON COLUMN elt.job_status.rows_loaded IS 'Rows loaded then; NULL for a job that loads nothing.';
COMMENT ON COLUMN elt.job_status.stage_seconds IS 'Seconds of export and staging then.';
COMMENT ON COLUMN elt.job_status.publish_seconds IS 'Seconds inside the publish transaction then.';
COMMENT ON COLUMN elt.job_status.run_id IS 'The latest run of the job.';
COMMENT ON COLUMN elt.job_status.error IS 'Why the latest run of the job failed.';
