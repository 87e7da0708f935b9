/* visible.h: which GPU a process uses: the first in CUDA_VISIBLE_DEVICES.
 *
 * All threads of a process begin with the first device that it sees. CUDA reads the list
 * when it starts; the devices of other ranks stay in it, for what NCCL asks of them. */
#ifndef LIGHTHOUSE_CUDA_VISIBLE_H
#define LIGHTHOUSE_CUDA_VISIBLE_H

/* The first `count` of the list, which without one are 0, 1, ..., turned so that it begins
 * with entry `number`. An entry that is missing is an empty one: CUDA's list ends there. */
void lh_cuda_choose(int number, int count);

#endif
