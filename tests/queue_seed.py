"""A queue of any size in a migrated PostgreSQL, made by SQL: active executions, and results that wait in them."""

import psycopg

_SEED = """
insert into users (id, role, name, create_time)
    select md5('user' || n)::uuid, 'USER', 'user ' || n, now() from generate_series(1, {executions}) n;
insert into workflows (id, user_id, name, is_default, config, create_time)
    select md5('workflow' || n)::uuid, md5('user' || n)::uuid, 'default', true, '{{}}', now()
    from generate_series(1, {executions}) n;
insert into buckets (id, provider, model, fingerprint, "window", rate_limits, overloads)
    select md5('bucket' || n)::uuid, 'sandbox', 'sandbox', 'fingerprint ' || n, {window}, 0, 0
    from generate_series(1, {executions}) n;
insert into executions (id, user_id, workflow_id, request_hash, state, cancel_requested, model, provider, mode, settings,
        labels, bucket_id, total, pending, processing, completed, failed, cancelled, open_attempts, finishing,
        cost_micros, uncertain_micros, reserved_micros, reservation_micros, estimated_cost_micros, revision,
        own_revision, create_time)
    select md5('execution' || n)::uuid, md5('user' || n)::uuid, md5('workflow' || n)::uuid, '', 'PENDING', false,
        'sandbox', 'sandbox', 'STANDARD',
        '{{"prompt_prefix": "", "prompt_suffix": "", "reference_image_ids": [], "output": {{}}, "variations": 1,
           "seed": null, "max_attempts": 3, "timeout_ms": 180000, "on_unknown": "RETRY"}}',
        '{{}}', md5('bucket' || n)::uuid, {each}, {each}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, {each}, 0,
        now() - interval '1 hour'
    from generate_series(1, {executions}) n;
insert into active_executions select id, bucket_id, user_id from executions where active;
insert into results (id, execution_id, user_id, batch_index, variation, prompt_text, reference_image_ids, state, revision,
        ready_at, reserved_micros, attempts, failures, unknowns, damaged, empties, crashes, overloads, width, height,
        mime_type, sha256, error_code, error_message, error_retryable, cost_micros, uncertain_micros)
    select gen_random_uuid(), md5('execution' || n)::uuid, md5('user' || n)::uuid, i - 1, 0, 'prompt ' || i, '[]',
        'PENDING', i, now() - interval '1 hour', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, '', '', '', '', false, 0, 0
    from generate_series(1, {executions}) n, generate_series(1, {each}) i;
insert into attempts (id, user_id, execution_id, result_id, bucket_id, lease_id, model, reserved_micros, start_time,
        end_time, outcome, charged, cost_micros, input_tokens, text_output_tokens, image_output_tokens, usage_reported,
        provider_status, provider_response_id, error_code)
    select gen_random_uuid(), md5('user' || n)::uuid, gen_random_uuid(), gen_random_uuid(), md5('bucket' || n)::uuid,
        gen_random_uuid(), 'sandbox', 0, now() - interval '1 day', now() - interval '1 day', 'COMPLETED', 'YES', 0, 0, 0, 0,
        true, '', '', ''
    from generate_series(1, {executions}) n, generate_series(1, {each_past}) i;
"""


def seed(
    url: str, *, pending: int, executions: int = 100, past: int = 0, window: int = 1000, analyze: bool = True
) -> None:
    """Fill the database at a SQLAlchemy URL with ``pending`` results over executions of as many users and buckets.

    ``past`` is how many calls the ledger remembers besides. Without ``analyze`` the planner knows nothing of all this.
    """
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        each, each_past = pending // executions, past // executions
        statements = _SEED.format(executions=executions, each=each, each_past=each_past, window=window)
        connection.execute("set session_replication_role = replica")  # rows that fit need no checks of foreign keys
        connection.execute(statements.encode())
        if analyze:
            connection.execute("vacuum analyze")
