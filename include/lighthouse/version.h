/* version.h: the version of everything in this tree. */
#ifndef LIGHTHOUSE_VERSION_H
#define LIGHTHOUSE_VERSION_H

#define LH_VERSION "0.1.0"

#endif
