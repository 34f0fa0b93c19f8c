/*
 * The frequency of this machine's time stamp counter in kHz, for the guest's tsc_early_khz=: an
 * emulated guest reads the host's counter, and must not calibrate it by an emulated timer.
 * From CPUID leaf 0x15 where it is complete, else measured against CLOCK_MONOTONIC_RAW for two
 * milliseconds (good to some 20 ppm). 0 where there is no usable counter.
 */
#ifndef VMM_TSC_H
#define VMM_TSC_H

#include <stdint.h>

uint32_t tsc_frequency_khz(void);

#endif
