"""The statement of a capsule is what others take for a DSSE envelope, by securesystemslib's own verification."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from evidence.domain import capsule_files
from evidence.domain.notes import Signer, key_id
from tests.evidence.verifier import verify


def test_securesystemslib_verifies_the_envelope() -> None:
    signers = [Signer("log.example", Ed25519PrivateKey.generate()) for _ in range(2)]
    made = capsule_files.envelope(b'{"a":1}', signers)
    envelope = Envelope.from_dict(json.loads(made))
    theirs = [
        SSlibKey(
            f"{signer.name}+{key_id(signer.name, signer.public_key).hex()}",
            "ed25519",
            "ed25519",
            {"public": signer.public_key.hex()},
        )
        for signer in signers
    ]
    assert len(envelope.verify(theirs, 2)) == 2
    assert envelope.payload == b'{"a":1}'
    assert envelope.pae() == verify.pae(capsule_files.PAYLOAD_TYPE, b'{"a":1}')
    envelope.payload = b'{"a":2}'
    with pytest.raises(VerificationError):
        envelope.verify(theirs, 1)
