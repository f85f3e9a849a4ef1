"""A dump: the whole log as one file, byte for byte as it is stored, that any database can load.

A dump is text in lines, each one JSON object in UTF-8 that ends with a line feed. Bytes are base64
(RFC 4648, padded), ids are UUIDs with dashes, times are microseconds since 1970-01-01 UTC. A line
has one form: its fields in the order given below, each once, without spaces, and in its texts only
quotes, backslashes and control characters escaped. What another program needs to read one:

1. The first line says what it is:
   `{"format":"chatledger-dump","version":1,"wrapped_for":…,"counts":…,"last_position":…,"head":…}`.
   `counts` has the number of lines of each kind below, by the kinds' names in the plural.
   `last_position` is the position of the last event, 0 in an empty log. `head` is the last
   checkpoint as `GET /audit/checkpoints/` shows it, or null.
   `wrapped_for` says which key wraps the data keys whose `wrapped_by` is null:
   - `{"key":"data_key"}`: the `DATA_KEY` of the installation that will load it;
   - `{"key":"passphrase","kdf":"scrypt","n":…,"r":…,"p":…,"salt":…}`: the 32 bytes that scrypt
     (RFC 7914) makes of a passphrase.
2. Then the rows, in this order of kinds; each line has its kind as `kind` and a field for each
   column:
   - `seal_key`: `id`, `public_key` (32 bytes, Ed25519), by id;
   - `data_key`: `id`, `wrapped_by`, `wrapped`, by id. `wrapped` is a nonce of 12 bytes and what
     AES-256-GCM made of the key, with the 16 bytes of its id as associated data; null: destroyed;
   - `credential`: `user_id`, `claim_id`, `password_hash`, `jwt_epoch`, `active`, `role`, by user;
   - `event`: `position`, `stream_id`, `version`, `topic`, `data`, `at`, `event_id`, `actor`,
     `request_id`, `causation_id`, by position, which counts from 1 without a gap;
   - `checkpoint`: `number`, `first`, `last`, `root`, `leaves`, `previous`, `at`, `key_id`,
     `signature`, by number.
3. The last line ends it: `{"kind":"end","counts":…,"sha256":…}`, in this form without spaces;
   `sha256` is that of every byte before this line, in lower-case hex. What lacks it was cut short.

Not in a dump, since the log gives them back or they belong to the installation: read models,
snapshots, parked events, destructions that are not finished yet.
"""
