-- The history of the pipeline, kept in the database that it loads: runs, jobs, scripts, and applied definitions.
-- Job rows of status 'published' are written in the transaction that publishes the data, so they never contradict them.
-- Each column and constraint is added on its own: a warehouse of an older version gets those that it lacks, and what
-- somebody dropped is there again.  A default is only for the rows that were there before.

CREATE TABLE IF NOT EXISTS elt.runs (run_id bigint GENERATED ALWAYS AS IDENTITY);
ALTER TABLE elt.runs ADD COLUMN IF NOT EXISTS status text NOT NULL DEFAULT 'lost';
ALTER TABLE elt.runs ADD COLUMN IF NOT EXISTS run_date date NOT NULL DEFAULT current_date;
ALTER TABLE elt.runs ADD COLUMN IF NOT EXISTS started_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE elt.runs ADD COLUMN IF NOT EXISTS finished_at timestamptz;
ALTER TABLE elt.runs ADD COLUMN IF NOT EXISTS jobs text[] NOT NULL DEFAULT '{}';
ALTER TABLE elt.runs ADD COLUMN IF NOT EXISTS source text;
ALTER TABLE elt.runs ADD COLUMN IF NOT EXISTS process text NOT NULL DEFAULT 'not known';
ALTER TABLE elt.runs ADD COLUMN IF NOT EXISTS error text;
ALTER TABLE elt.runs ADD COLUMN IF NOT EXISTS is_unchanged boolean NOT NULL DEFAULT false;
ALTER TABLE elt.runs ADD COLUMN IF NOT EXISTS inputs_md5 text;
ALTER TABLE elt.runs ADD COLUMN IF NOT EXISTS kind text NOT NULL DEFAULT 'run';
ALTER TABLE elt.runs ADD COLUMN IF NOT EXISTS undone_run_id bigint;
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
COMMENT ON COLUMN elt.runs.is_unchanged IS
    'True: nothing had changed since the run before it, so it published nothing and has no rows in elt.job_runs.';
COMMENT ON COLUMN elt.runs.inputs_md5 IS
    'md5 of registry, scripts and run date of a run that published every job. NULL: of some jobs only, or something failed or warned.';
COMMENT ON COLUMN elt.runs.kind IS
    'run; undo (took back what a run published); preview (showed what a run would change, and was rolled back: it has no rows in elt.job_runs).';
COMMENT ON COLUMN elt.runs.undone_run_id IS
    'Run that this run of kind undo took back. If later ones had published without a change, it took back these, too.';

CREATE TABLE IF NOT EXISTS elt.job_runs (run_id bigint NOT NULL, job text NOT NULL);
ALTER TABLE elt.job_runs ADD COLUMN IF NOT EXISTS status text NOT NULL DEFAULT 'failed';
ALTER TABLE elt.job_runs ADD COLUMN IF NOT EXISTS recorded_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE elt.job_runs ADD COLUMN IF NOT EXISTS rows_loaded bigint;
ALTER TABLE elt.job_runs ADD COLUMN IF NOT EXISTS rows_before bigint;
ALTER TABLE elt.job_runs ADD COLUMN IF NOT EXISTS source_version text;
ALTER TABLE elt.job_runs ADD COLUMN IF NOT EXISTS accepted_shrink boolean NOT NULL DEFAULT false;
ALTER TABLE elt.job_runs ADD COLUMN IF NOT EXISTS stage_seconds numeric;
ALTER TABLE elt.job_runs ADD COLUMN IF NOT EXISTS publish_seconds numeric;
ALTER TABLE elt.job_runs ADD COLUMN IF NOT EXISTS error text;
ALTER TABLE elt.job_runs ADD COLUMN IF NOT EXISTS source_imported_at timestamptz;
ALTER TABLE elt.job_runs ADD COLUMN IF NOT EXISTS unused_columns text[];
ALTER TABLE elt.job_runs ADD COLUMN IF NOT EXISTS bronze_fingerprint text;
ALTER TABLE elt.job_runs ADD COLUMN IF NOT EXISTS accepted_guards text[];
ALTER TABLE elt.job_runs ADD COLUMN IF NOT EXISTS is_unchanged boolean;
COMMENT ON TABLE elt.job_runs IS 'One row per job of a run that has ended.';
COMMENT ON COLUMN elt.job_runs.run_id IS 'Run, as in elt.runs.';
COMMENT ON COLUMN elt.job_runs.job IS 'Name of the job in elt_jobs.json.';
COMMENT ON COLUMN elt.job_runs.status IS
    'published; failed; held back (another job of its group failed, so its tables kept the old rows); undone (was published, and a later run of kind undo took it back).';
COMMENT ON COLUMN elt.job_runs.recorded_at IS 'When the job was published, failed or was held back.';
COMMENT ON COLUMN elt.job_runs.rows_loaded IS
    'Rows in the bronze table after this load. NULL: the job loaded nothing, see is_unchanged.';
COMMENT ON COLUMN elt.job_runs.rows_before IS 'Rows in the bronze table before this run.';
COMMENT ON COLUMN elt.job_runs.source_version IS
    'Version of the table in the source at the time of the export. Equal versions have equal content.';
COMMENT ON COLUMN elt.job_runs.source_imported_at IS
    'When the source last imported rows into the table. NULL: the source does not say, or a run of an older version.';
COMMENT ON COLUMN elt.job_runs.bronze_fingerprint IS
    'Of the bronze table''s rows after this load: the server''s major version, a hash of the column names, the number of rows, and a sum of row hashes. If the next run finds another one, somebody changed the table by hand. NULL: unknown.';
COMMENT ON COLUMN elt.job_runs.unused_columns IS
    'Columns of the source that the bronze table lacks. NULL: none, or a run of an older version.';
COMMENT ON COLUMN elt.job_runs.accepted_shrink IS 'True if accepted_guards contains shrink.';
COMMENT ON COLUMN elt.job_runs.accepted_guards IS
    'Guards that a person accepted for this job (--accept JOB:GUARD). NULL: a run of an older version, see accepted_shrink.';
COMMENT ON COLUMN elt.job_runs.is_unchanged IS
    'True: the source was as last loaded, so it was not exported, and bronze kept its rows. False: exported. NULL: the job loads no table, did not load it in this run, or a run of an older version.';
COMMENT ON COLUMN elt.job_runs.stage_seconds IS 'Seconds from the request for the export to the last staged row.';
COMMENT ON COLUMN elt.job_runs.publish_seconds IS
    'Seconds in the publish transaction: load, scripts and checks of this job.';
COMMENT ON COLUMN elt.job_runs.error IS 'Why the job failed or was held back.';

CREATE TABLE IF NOT EXISTS elt.script_runs (run_id bigint NOT NULL, job text NOT NULL, script text NOT NULL);
ALTER TABLE elt.script_runs ADD COLUMN IF NOT EXISTS seconds numeric NOT NULL DEFAULT 0;
ALTER TABLE elt.script_runs ADD COLUMN IF NOT EXISTS inserted bigint;
ALTER TABLE elt.script_runs ADD COLUMN IF NOT EXISTS updated bigint;
ALTER TABLE elt.script_runs ADD COLUMN IF NOT EXISTS deleted bigint;
ALTER TABLE elt.script_runs ADD COLUMN IF NOT EXISTS unchanged bigint;
ALTER TABLE elt.script_runs ADD COLUMN IF NOT EXISTS broken_by bigint;
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

CREATE TABLE IF NOT EXISTS elt.slices (run_id bigint NOT NULL, job text NOT NULL, number integer NOT NULL);
ALTER TABLE elt.slices ADD COLUMN IF NOT EXISTS name text;
ALTER TABLE elt.slices ADD COLUMN IF NOT EXISTS source_job text;
ALTER TABLE elt.slices ADD COLUMN IF NOT EXISTS source_file text;
ALTER TABLE elt.slices ADD COLUMN IF NOT EXISTS bytes bigint;
ALTER TABLE elt.slices ADD COLUMN IF NOT EXISTS rows bigint;
ALTER TABLE elt.slices ADD COLUMN IF NOT EXISTS seconds numeric;
ALTER TABLE elt.slices ADD COLUMN IF NOT EXISTS tries integer;
COMMENT ON TABLE elt.slices IS
    'One row per slice that a published job loaded. The sum of rows is rows_loaded in elt.job_runs.';
COMMENT ON COLUMN elt.slices.run_id IS 'Run, as in elt.runs.';
COMMENT ON COLUMN elt.slices.job IS 'Job that loaded it, as in elt.job_runs.';
COMMENT ON COLUMN elt.slices.number IS 'Number of the slice in its export, from 1.';
COMMENT ON COLUMN elt.slices.name IS 'Name of the slice in the source: the last part of the object''s key, or the query''s file.';
COMMENT ON COLUMN elt.slices.source_job IS 'Job in Keboola that made the export. NULL: the source has no jobs.';
COMMENT ON COLUMN elt.slices.source_file IS 'File in Keboola that held the export; it lives two days. NULL as for source_job.';
COMMENT ON COLUMN elt.slices.bytes IS 'Bytes of CSV, unpacked.';
COMMENT ON COLUMN elt.slices.rows IS 'Rows of the slice, as PostgreSQL counted them.';
COMMENT ON COLUMN elt.slices.seconds IS 'Seconds from the first request for the slice to its last row.';
COMMENT ON COLUMN elt.slices.tries IS 'How often the slice was asked for. More than 1: the connection was cut.';

CREATE TABLE IF NOT EXISTS elt.definitions (script text NOT NULL);
ALTER TABLE elt.definitions ADD COLUMN IF NOT EXISTS script_md5 text NOT NULL DEFAULT '';
ALTER TABLE elt.definitions ADD COLUMN IF NOT EXISTS view_md5 text;
ALTER TABLE elt.definitions ADD COLUMN IF NOT EXISTS run_id bigint NOT NULL DEFAULT 0;
ALTER TABLE elt.definitions ADD COLUMN IF NOT EXISTS applied_at timestamptz NOT NULL DEFAULT now();
COMMENT ON TABLE elt.definitions IS
    'Bronze and gold scripts as last applied in this database. A script that differs is applied again.';
COMMENT ON COLUMN elt.definitions.script IS 'Path below sql_scripts, such as gold/dim_date.sql.';
COMMENT ON COLUMN elt.definitions.script_md5 IS 'md5 of the script text that was applied.';
COMMENT ON COLUMN elt.definitions.view_md5 IS
    'md5 of pg_get_viewdef() after that. It differs if somebody replaced the view by hand.';
COMMENT ON COLUMN elt.definitions.run_id IS 'Run that applied the script.';
COMMENT ON COLUMN elt.definitions.applied_at IS 'When the script was applied.';

CREATE TABLE IF NOT EXISTS elt.changes (run_id bigint NOT NULL, relation text NOT NULL);
ALTER TABLE elt.changes ADD COLUMN IF NOT EXISTS relation_oid oid NOT NULL DEFAULT 0;
ALTER TABLE elt.changes ADD COLUMN IF NOT EXISTS inserted bigint NOT NULL DEFAULT 0;
ALTER TABLE elt.changes ADD COLUMN IF NOT EXISTS updated bigint NOT NULL DEFAULT 0;
ALTER TABLE elt.changes ADD COLUMN IF NOT EXISTS deleted bigint NOT NULL DEFAULT 0;
ALTER TABLE elt.changes ADD COLUMN IF NOT EXISTS by_other_statements bigint NOT NULL DEFAULT 0;
ALTER TABLE elt.changes ADD COLUMN IF NOT EXISTS first_filling boolean NOT NULL DEFAULT false;
ALTER TABLE elt.changes ADD COLUMN IF NOT EXISTS key_columns text[];
ALTER TABLE elt.changes ADD COLUMN IF NOT EXISTS kept_as text;
ALTER TABLE elt.changes ADD COLUMN IF NOT EXISTS filled_columns text[];
ALTER TABLE elt.changes ADD COLUMN IF NOT EXISTS filled_with text;
COMMENT ON TABLE elt.changes IS 'One row per run and table that the run changed. elt.row_changes shows the rows.';
COMMENT ON COLUMN elt.changes.run_id IS 'Run, as in elt.runs.';
COMMENT ON COLUMN elt.changes.relation IS 'Table, with its schema, such as silver.products.';
COMMENT ON COLUMN elt.changes.relation_oid IS 'The table''s pg_class.oid: a table made anew under this name has another.';
COMMENT ON COLUMN elt.changes.inserted IS
    'Rows inserted by the load of bronze, elt.publish_rows and elt.publish_history. If rows are kept, each counts once: as it was before the run, against after it. If not, the calls of the run are added up.';
COMMENT ON COLUMN elt.changes.updated IS 'Rows updated, as for inserted.';
COMMENT ON COLUMN elt.changes.deleted IS 'Rows deleted, as for inserted.';
COMMENT ON COLUMN elt.changes.by_other_statements IS
    'Rows that INSERT, UPDATE or DELETE of a script, a trigger or a foreign key changed besides. Not 0: the kept rows are not all that changed.';
COMMENT ON COLUMN elt.changes.first_filling IS 'Whether the table was empty when the run filled it. Then rows are not kept.';
COMMENT ON COLUMN elt.changes.key_columns IS 'Primary key by which kept rows are told apart. NULL: bronze, or not kept.';
COMMENT ON COLUMN elt.changes.kept_as IS
    'Table in schema elt_changes that keeps the rows. NULL: only counts are kept, or the rows were dropped since.';
COMMENT ON COLUMN elt.changes.filled_columns IS
    'Columns of the table after its first filling, each with type, modifier and collation. NULL: no first filling, or a run of an older version.';
COMMENT ON COLUMN elt.changes.filled_with IS
    'Number of the rows after a first filling, and a sum of row hashes. NULL as for filled_columns.';

CREATE TABLE IF NOT EXISTS elt.table_states (relation text NOT NULL);
ALTER TABLE elt.table_states ADD COLUMN IF NOT EXISTS run_id bigint NOT NULL DEFAULT 0;
ALTER TABLE elt.table_states ADD COLUMN IF NOT EXISTS job text;
ALTER TABLE elt.table_states ADD COLUMN IF NOT EXISTS state text NOT NULL DEFAULT '';
COMMENT ON TABLE elt.table_states IS
    'Tables, views and functions as a run left them. What is still so, is not exported or published again. May be emptied: the next run then does everything.';
COMMENT ON COLUMN elt.table_states.relation IS 'Schema and name; a function also has the oids of its arguments'' types.';
COMMENT ON COLUMN elt.table_states.run_id IS 'Run that loaded the table, or that last read the relation.';
COMMENT ON COLUMN elt.table_states.job IS 'Job that loaded the table. NULL: no job loads it.';
COMMENT ON COLUMN elt.table_states.state IS
    'Oid, file, md5 of the columns, since when PostgreSQL counts, and its counters of inserted (+), updated (~) and deleted (-) rows; a line for each part of the relation.';

-- Runs that are missing although their jobs are there, because somebody dropped or emptied elt.runs.
INSERT INTO elt.runs (run_id, status, run_date, started_at, finished_at, jobs, process, error)
OVERRIDING SYSTEM VALUE
SELECT
    run_id,
    CASE WHEN bool_and(status = 'published') THEN 'done' ELSE 'failed' END,
    coalesce(min(recorded_at), now())::date,
    coalesce(min(recorded_at), now()),
    max(recorded_at),
    array_agg(DISTINCT job ORDER BY job),
    'not known',
    'the row of this run was lost; it was made again from its jobs'
FROM (
    SELECT run_id, job, status, recorded_at FROM elt.job_runs
    UNION ALL
    SELECT run_id, job, 'published' AS status, NULL AS recorded_at FROM elt.script_runs
    UNION ALL
    SELECT run_id, job, 'published' AS status, NULL AS recorded_at FROM elt.slices
) AS recorded
WHERE run_id NOT IN (SELECT run_id FROM elt.runs)
GROUP BY run_id;

DO $block$
DECLARE
    missing  text;
    outdated text;
BEGIN
    FOR outdated IN
        SELECT format('ALTER TABLE elt.job_runs DROP CONSTRAINT %I', conname)
        FROM pg_constraint
        WHERE conrelid = 'elt.job_runs'::regclass AND contype = 'c'
            AND pg_get_constraintdef(oid) LIKE '%held back%' AND pg_get_constraintdef(oid) NOT LIKE '%undone%'
    LOOP
        EXECUTE outdated;
    END LOOP;
    FOR missing IN
        SELECT format('ALTER TABLE elt.%I ADD %s', wanted.name, wanted.constraint_text)
        FROM (
            VALUES
                ('runs', 'p', 'PRIMARY KEY (run_id)'),
                ('runs', 'c', $$CHECK (status IN ('running', 'done', 'failed', 'cancelled', 'lost'))$$),
                ('job_runs', 'p', 'PRIMARY KEY (run_id, job)'),
                ('job_runs', 'f', 'FOREIGN KEY (run_id) REFERENCES elt.runs'),
                ('job_runs', 'c', $$CHECK (status IN ('published', 'failed', 'held back', 'undone'))$$),
                ('script_runs', 'p', 'PRIMARY KEY (run_id, job, script)'),
                ('script_runs', 'f', 'FOREIGN KEY (run_id) REFERENCES elt.runs'),
                ('changes', 'p', 'PRIMARY KEY (run_id, relation)'),
                ('slices', 'p', 'PRIMARY KEY (run_id, job, number)'),
                ('slices', 'f', 'FOREIGN KEY (run_id) REFERENCES elt.runs'),
                ('definitions', 'p', 'PRIMARY KEY (script)'),
                ('table_states', 'p', 'PRIMARY KEY (relation)')
        ) AS wanted (name, kind, constraint_text)
        WHERE NOT EXISTS (
            SELECT FROM pg_constraint
            WHERE conrelid = to_regclass('elt.' || wanted.name) AND contype::text = wanted.kind
        )
        ORDER BY wanted.kind DESC  -- primary keys, then what references them
    LOOP
        EXECUTE missing;
    END LOOP;
    IF (SELECT attidentity = '' FROM pg_attribute WHERE attrelid = 'elt.runs'::regclass AND attname = 'run_id') THEN
        ALTER TABLE elt.runs ALTER COLUMN run_id ADD GENERATED ALWAYS AS IDENTITY;
    END IF;
END
$block$;

-- A run is at work only while a session holds the run lock (lib/postgres/run_lock.py).  So a run whose process was
-- killed is lost at once here, and in elt.runs as soon as the next run notices it.  A preview changed nothing, so it is
-- not among them.
CREATE OR REPLACE VIEW elt.recent_runs AS
WITH

first_errors AS (
    SELECT DISTINCT ON (run_id) run_id, error
    FROM elt.job_runs
    WHERE status = 'failed'
    ORDER BY run_id ASC, recorded_at ASC, job ASC
)

SELECT
    runs.run_id,
    CASE
        WHEN runs.status = 'running' AND NOT EXISTS (
            SELECT FROM pg_locks
            WHERE locktype = 'advisory' AND granted AND classid = 6646900 AND objid = 1 AND objsubid = 2
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        ) THEN 'lost'
        ELSE runs.status
    END AS status,
    runs.started_at,
    round(extract(EPOCH FROM runs.finished_at - runs.started_at), 1) AS seconds,
    count(job_runs.job) FILTER (WHERE job_runs.status = 'published') AS jobs_published,
    count(job_runs.job) FILTER (WHERE job_runs.status <> 'published') AS jobs_not_published,
    sum(job_runs.rows_loaded) FILTER (WHERE job_runs.status = 'published') AS rows_loaded,
    coalesce(runs.error, first_errors.error) AS error,
    runs.finished_at,
    runs.is_unchanged,
    runs.kind
FROM elt.runs AS runs
LEFT JOIN elt.job_runs AS job_runs USING (run_id)
LEFT JOIN first_errors USING (run_id)
WHERE runs.kind <> 'preview'
GROUP BY runs.run_id, first_errors.error
ORDER BY runs.run_id DESC;
COMMENT ON VIEW elt.recent_runs IS 'One row per run, newest first, with its result. Previews are only in elt.runs.';
COMMENT ON COLUMN elt.recent_runs.run_id IS 'Run, as in elt.runs.';
COMMENT ON COLUMN elt.recent_runs.status IS 'running (its process is at work now), done, failed, cancelled or lost; explained in elt.runs.';
COMMENT ON COLUMN elt.recent_runs.started_at IS 'When the run took the run lock.';
COMMENT ON COLUMN elt.recent_runs.seconds IS 'Seconds from start to end. NULL as for finished_at.';
COMMENT ON COLUMN elt.recent_runs.jobs_published IS 'Jobs whose new rows readers can see.';
COMMENT ON COLUMN elt.recent_runs.jobs_not_published IS
    'Jobs that failed or were held back, so that their tables kept the old rows, or that were taken back.';
COMMENT ON COLUMN elt.recent_runs.rows_loaded IS 'Rows written to bronze tables by published jobs.';
COMMENT ON COLUMN elt.recent_runs.error IS
    'Why the run ended early, else the error of the job that failed first. NULL: no error.';
COMMENT ON COLUMN elt.recent_runs.finished_at IS
    'When the run ended. NULL: it is still running, or it is lost and no later run has noticed it.';
COMMENT ON COLUMN elt.recent_runs.is_unchanged IS 'True: nothing had changed, so it published nothing.';
COMMENT ON COLUMN elt.recent_runs.kind IS 'run, or undo: it took back what a run had published.';

CREATE OR REPLACE VIEW elt.job_status AS
WITH

latest AS (
    SELECT DISTINCT ON (job) job, run_id, status, recorded_at, error, is_unchanged
    FROM elt.job_runs
    ORDER BY job ASC, run_id DESC
),

published AS (
    SELECT DISTINCT ON (job) job, recorded_at, publish_seconds
    FROM elt.job_runs
    WHERE status = 'published'
    ORDER BY job ASC, run_id DESC
),

-- Not every run that publishes a job also loads it: a run of some jobs only refines what depends on them.
loaded AS (
    SELECT DISTINCT ON (job) job, rows_loaded, stage_seconds, source_imported_at
    FROM elt.job_runs
    WHERE status = 'published' AND rows_loaded IS NOT NULL
    ORDER BY job ASC, run_id DESC
)

SELECT
    latest.job,
    latest.status,
    published.recorded_at AS published_at,
    loaded.rows_loaded,
    loaded.stage_seconds,
    published.publish_seconds,
    latest.run_id,
    latest.error,
    loaded.source_imported_at,
    latest.is_unchanged
FROM latest
LEFT JOIN published USING (job)
LEFT JOIN loaded USING (job)
ORDER BY latest.job;
COMMENT ON VIEW elt.job_status IS 'One row per job: how its latest run ended, and when its tables were last published.';
COMMENT ON COLUMN elt.job_status.job IS 'Name of the job in elt_jobs.json.';
COMMENT ON COLUMN elt.job_status.status IS 'Result of its latest run: published, failed, held back or undone.';
COMMENT ON COLUMN elt.job_status.published_at IS 'When its tables were last published. NULL: never.';
COMMENT ON COLUMN elt.job_status.rows_loaded IS
    'Rows of its last load, which may be older than published_at. NULL: the job loads no table.';
COMMENT ON COLUMN elt.job_status.stage_seconds IS 'Seconds of export and staging of its last load.';
COMMENT ON COLUMN elt.job_status.publish_seconds IS
    'Seconds in the publish transaction when its tables were last published.';
COMMENT ON COLUMN elt.job_status.run_id IS 'Latest run of the job, published or not.';
COMMENT ON COLUMN elt.job_status.error IS
    'Why the latest run of the job failed or was held back. NULL: it was published.';
COMMENT ON COLUMN elt.job_status.source_imported_at IS
    'When the source last imported the rows of the last load. NULL: the job loads no table, or the source does not say.';
COMMENT ON COLUMN elt.job_status.is_unchanged IS 'As in elt.job_runs, for its latest run.';
