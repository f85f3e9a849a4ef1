"""PostgreSQL's append: one round trip that locks, numbers, stamps, stores and announces."""

from django.db import migrations

APPEND = """
CREATE FUNCTION chatledger_append(
    jobs int[], streams uuid[], versions int[], topics text[], datas bytea[],
    event_ids uuid[], actors text[], request_ids text[], causation_ids uuid[], announced boolean
) RETURNS bigint[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    start_position bigint;
    last_position bigint;
    stamp bigint;
    results bigint[] := '{}';
    stored bigint;
    violated text;
BEGIN
    PERFORM pg_advisory_xact_lock(7163082359995458663);
    SELECT e.position, e.at INTO start_position, stamp
        FROM eventstore_event e ORDER BY e.position DESC LIMIT 1;
    start_position := coalesce(start_position, 0);
    last_position := start_position;
    stamp := greatest(
        coalesce(stamp, 0), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
    );
    BEGIN
        INSERT INTO eventstore_event (position, stream_id, version, topic, data, at,
                                      event_id, actor, request_id, causation_id)
        SELECT start_position + row.number, row.stream, row.version, row.topic, row.data, stamp,
               row.event_id, row.actor, row.request_id, row.causation_id
        FROM unnest(streams, versions, topics, datas, event_ids, actors, request_ids, causation_ids)
             WITH ORDINALITY AS row(stream, version, topic, data, event_id, actor, request_id,
                                    causation_id, number);
        SELECT array_agg(ends.position ORDER BY ends.job) INTO results FROM (
            SELECT each.job, start_position + max(each.number) AS position
            FROM unnest(jobs) WITH ORDINALITY AS each(job, number) GROUP BY each.job
        ) ends;
        last_position := start_position + cardinality(jobs);
    EXCEPTION WHEN unique_violation THEN
        -- One of the jobs has lost a race: each alone, so that it takes nobody along.
        results := '{}';
        last_position := start_position;
        FOR job_number IN 1 .. jobs[cardinality(jobs)] LOOP
            BEGIN
                INSERT INTO eventstore_event (position, stream_id, version, topic, data, at,
                                              event_id, actor, request_id, causation_id)
                SELECT last_position + row_number() OVER (ORDER BY row.number), row.stream,
                       row.version, row.topic, row.data, stamp, row.event_id, row.actor,
                       row.request_id, row.causation_id
                FROM unnest(jobs, streams, versions, topics, datas, event_ids, actors,
                            request_ids, causation_ids)
                     WITH ORDINALITY AS row(job, stream, version, topic, data, event_id, actor,
                                            request_id, causation_id, number)
                WHERE row.job = job_number;
                GET DIAGNOSTICS stored = ROW_COUNT;
                last_position := last_position + stored;
                results := array_append(results, last_position);
            EXCEPTION WHEN unique_violation THEN
                GET STACKED DIAGNOSTICS violated = CONSTRAINT_NAME;
                IF violated <> 'one_event_a_version' THEN
                    RAISE;
                END IF;
                results := array_append(results, NULL);
            END;
        END LOOP;
    END;
    IF announced AND last_position > start_position THEN
        PERFORM pg_notify('chatledger_appended', last_position::text);
    END IF;
    RETURN results;
END
$$;
"""


def create(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(APPEND, params=None)


def drop(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("DROP FUNCTION IF EXISTS chatledger_append", params=None)


class Migration(migrations.Migration):
    dependencies = [("eventstore", "0001_initial")]
    operations = [migrations.RunPython(create, drop)]
