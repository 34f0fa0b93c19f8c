/*
 * Where this process and the interrupts of its streams run.
 *
 * Under QEMU's emulator waking a thread on another processor costs some hundred microseconds: the
 * emulated interrupt wakes a thread of the host. A request passes from the program through a
 * worker and the kernel's queues and back; with all of that on one processor a request took a
 * quarter of the time (300 SETATTR with two processors: 1.3 s, and 0.35 s so).
 */
#ifndef GUEST_FUSED_PLACEMENT_H
#define GUEST_FUSED_PLACEMENT_H

/* In an emulated machine, binds the calling thread, and those that it will start, to the first
 * processor, and the interrupts of virtio devices with them. Anywhere else, does nothing. What
 * cannot be bound stays where it is: that is slower, not wrong. */
void fused_placement_apply(void);

#endif
