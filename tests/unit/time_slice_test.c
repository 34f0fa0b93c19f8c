/* base/time_slice.h, by what the kernel says of the thread afterwards. */
#include "base/time_slice.h"

#include <check.h>
#include <errno.h>
#include <linux/sched.h>
#include <linux/sched/types.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

static struct sched_attr attributes_now(void)
{
	struct sched_attr attributes = { .size = sizeof(attributes) };

	ck_assert_int_eq(syscall(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0), 0);
	return attributes;
}

static void set_policy(uint32_t policy)
{
	struct sched_attr attributes = attributes_now();

	attributes.sched_policy = policy;
	attributes.sched_runtime = 0;
	ck_assert_int_eq(syscall(SYS_sched_setattr, 0, &attributes, 0), 0);
}

/* Kernels before 6.12 have one slice for all, and tell none. */
static bool kernel_has_slices(void)
{
	struct utsname name;
	unsigned major;
	unsigned minor;

	ck_assert_int_eq(uname(&name), 0);
	ck_assert_int_eq(sscanf(name.release, "%u.%u", &major, &minor), 2);
	return major > 6 || (major == 6 && minor >= 12);
}

/* Each test is a process of its own. */
START_TEST(the_kernel_grants_it)
{
	ck_assert_int_eq(time_slice_ask(TIME_SLICE_MIN_NS), 0);
	if (kernel_has_slices())
		ck_assert_uint_eq(attributes_now().sched_runtime, TIME_SLICE_MIN_NS);
}
END_TEST

START_TEST(all_else_stays_as_it_is)
{
	ck_assert_int_eq(setpriority(PRIO_PROCESS, 0, 7), 0);
	set_policy(SCHED_BATCH);
	ck_assert_int_eq(time_slice_ask(TIME_SLICE_MIN_NS), 0);
	ck_assert_int_eq(getpriority(PRIO_PROCESS, 0), 7);
	ck_assert_uint_eq(attributes_now().sched_policy, SCHED_BATCH);
}
END_TEST

START_TEST(who_does_not_share_gets_none)
{
	set_policy(SCHED_IDLE);
	ck_assert_int_eq(time_slice_ask(TIME_SLICE_MIN_NS), -EPERM);
	ck_assert_uint_eq(attributes_now().sched_policy, SCHED_IDLE);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("time_slice");
	TCase *tests = tcase_create("time_slice");
	SRunner *runner;
	int failed;

	tcase_add_test(tests, the_kernel_grants_it);
	tcase_add_test(tests, all_else_stays_as_it_is);
	tcase_add_test(tests, who_does_not_share_gets_none);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
