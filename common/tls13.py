"""TLS 1.3 and nothing older, which gRPC for Python has no option for."""

from __future__ import annotations

import os


def require_tls13() -> None:
    """Leave gRPC no cipher of TLS 1.2 that works with our certificates.

    The variable lists the ciphers of TLS 1.2 alone; those of 1.3 are always on. The one that is
    left needs an RSA certificate, and crossply's are ECDSA. To be called before gRPC is imported,
    which reads it once.
    """
    os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-RSA-AES256-GCM-SHA384"
    # its C core writes lines of its own between ours
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
