// The one door to ISA-L, for CRC32C in hardware; imported by Checksums alone.
#include <isa-l/crc.h>
