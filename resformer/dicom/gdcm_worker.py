"""Run as a program: decodes the frame on standard input with GDCM to standard output.

Arguments: transfer syntax UID, width, height, bits of a value, seconds of processor time.
"""

from __future__ import annotations

import sys

import gdcm


def limit_resources(pixels: int, seconds: int) -> None:
    """Bounds memory and processor time where the system can."""
    if sys.platform == "win32":
        return
    import resource

    memory = (1 << 30) + 24 * pixels
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def decode(frame: bytes, syntax: str, width: int, height: int, bits: int) -> bytes:
    """Decodes one grey frame; the samples come in the machine's byte order."""
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((width, height, 1))
    image.SetDataElement(element)
    grey = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(grey))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    image.SetPixelFormat(gdcm.PixelFormat(1, 8 if bits <= 8 else 16, bits, bits - 1, 0))
    # the binding hands out bytes as text
    samples: str = image.GetBuffer()
    return samples.encode("utf-8", "surrogateescape")


def main() -> None:
    """Decodes by the command line's arguments."""
    syntax = sys.argv[1]
    width, height, bits, seconds = map(int, sys.argv[2:])
    limit_resources(width * height, seconds)
    frame = sys.stdin.buffer.read()
    sys.stdout.buffer.write(decode(frame, syntax, width, height, bits))


if __name__ == "__main__":
    main()
