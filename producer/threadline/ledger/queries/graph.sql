-- What %(fingerprint)s stands for.
SELECT structure FROM {schema}.graphs WHERE fingerprint = %(fingerprint)s
