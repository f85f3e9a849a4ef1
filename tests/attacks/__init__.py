"""Bad input and hostile clients, over real HTTP against real processes.

Where each row of the table of attacks has its home:

- JWTs: `tests/api/test_jwt.py`, `test_logout.py`, `test_password.py`, `test_activation.py`; one of
  8 MB: `test_raw_bytes.py`
- parallel registrations of one name: `tests/faults/test_races.py`
- names and passwords: `tests/api/test_register.py`
- parallel logins, wrong name against wrong password: `test_logins.py`
- every route with two users, a model's base URL: `test_two_users.py`
- staff routes as a user: `tests/api/test_staff_only.py`
- SQL and long numbers in every field: `test_injection.py`; deep JSON and the like:
  `tests/api/test_bodies.py`, `test_strict_json.py`
- raw bytes, heads over 16 KiB, offers of other protocols: `test_raw_bytes.py`
- slow and idle clients: `test_slow_clients.py`
- headers and parameters given twice, HEAD on an export, bodies where none is read:
  `test_given_twice.py`
- a model's reply with script and control characters: `test_model_reply.py`
- line breaks and canaries in logs, tracebacks, broker messages and Redis: `test_canaries.py`
- fuzzing from the served document: `fuzz.py` (`make fuzz`), a little of it in `test_fuzz.py`
- a password change that a deactivation overtakes: `tests/accounts/test_roles_and_activation.py`
"""
