// The one door to ISA-L, for CRC32C in hardware; imported by Bytes alone.
#include <isa-l/crc.h>
