/* version.h: the version of everything in this tree. */
#ifndef LIGHTHOUSE_VERSION_H
#define LIGHTHOUSE_VERSION_H

#define LH_VERSION "0.1.0"

/* "0.1.0 (1f2e3d4c5b6a)": the revision it was built from, "-dirty" with changes on
 * top; the version alone when it was built outside of git. Generated. */
extern const char lh_build[];

#endif
