// The one door to libnbd (libnbd(3)).
#include <libnbd.h>
