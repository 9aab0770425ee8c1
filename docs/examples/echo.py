# SPDX-License-Identifier: Apache-2.0
"""A peer that sends each request's bytes back: ``python echo.py SEGMENT``."""

import sys

import xseg

ECHO_PORT = 9


def main(name: str) -> None:
    """Serve until a CLOSE."""
    with xseg.Segment.attach(name) as segment, segment.bind(ECHO_PORT, "echo") as port:
        done = False
        while not done and port.wait():
            while (rq := port.accept()) is not None:
                done = rq.op == xseg.Op.CLOSE
                # The bytes lie in the asker's buffer.
                port.complete(rq, rq.data_len)


if __name__ == "__main__":
    main(sys.argv[1])
