// The one door to nbdkit's plugin API (nbdkit-plugin(3)); imported by LacunaPlugin alone.
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>
