#include "base/event_loop.h"
#include "base/io.h"

#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* ---- when to look --------------------------------------------------------------------------- */

START_TEST(long_waits_are_slept_through)
{
	struct poll_ahead ahead = { 0 };

	for (int i = 0; i < 100; i++) {
		poll_ahead_slept(&ahead, POLL_AHEAD_NS);
		ck_assert(!ahead.is_wanted);
	}
}
END_TEST

START_TEST(a_short_wait_makes_one_look)
{
	struct poll_ahead ahead = { 0 };

	poll_ahead_slept(&ahead, POLL_AHEAD_NS - 1);
	ck_assert(ahead.is_wanted);
	/* Whoever looks and finds says nothing: it goes on. */
	poll_ahead_failed(&ahead);
	ck_assert(!ahead.is_wanted);
}
END_TEST

START_TEST(a_look_in_vain_is_followed_by_a_rest)
{
	struct poll_ahead ahead = { .is_wanted = true };

	poll_ahead_failed(&ahead);
	for (unsigned i = 0; i < POLL_AHEAD_REST; i++) {
		/* Long ones say nothing about the short. */
		poll_ahead_slept(&ahead, POLL_AHEAD_NS * 2);
		poll_ahead_slept(&ahead, 1);
		ck_assert(!ahead.is_wanted);
	}
	poll_ahead_slept(&ahead, 1);
	ck_assert(ahead.is_wanted);
}
END_TEST

/* ---- a loop that does ----------------------------------------------------------------------- */

#define TURNS 2000

static struct event_loop loop;
static struct event_source source;
static int ends[2];
static unsigned received;

static void on_byte(struct event_source *ready, uint32_t events)
{
	char byte;

	(void)events;
	ck_assert_int_eq(read(ready->fd, &byte, 1), 1);
	received++;
	ck_assert_int_eq(write(ready->fd, &byte, 1), 1);
}

static void set_up(void)
{
	received = 0;
	ck_assert_int_eq(event_loop_init(&loop), 0);
	loop.polls = true;
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	source = (struct event_source){ .ready = on_byte, .fd = ends[0] };
	ck_assert_int_eq(event_loop_add(&loop, &source, EPOLLIN), 0);
}

static void tear_down(void)
{
	event_loop_release(&loop);
	close(ends[0]);
	close(ends[1]);
}

static void *answer(void *unused)
{
	char byte = 'a';

	(void)unused;
	for (unsigned i = 0; i < TURNS; i++) {
		/* Now and then slower than anybody looks. */
		if (i % 50 == 0)
			usleep(200);
		if (write(ends[1], &byte, 1) != 1 || read(ends[1], &byte, 1) != 1)
			break;
	}
	return NULL;
}

START_TEST(every_event_comes_through)
{
	pthread_t thread;

	ck_assert_int_eq(pthread_create(&thread, NULL, answer, NULL), 0);
	while (received < TURNS)
		ck_assert_int_ge(event_loop_run_once(&loop, 10000), 0);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
	/* Whether it wanted to look or not: nothing is left. */
	loop.ahead.is_wanted = true;
	ck_assert_int_eq(event_loop_run_once(&loop, 1), 0);
	ck_assert(!loop.ahead.is_wanted);
	ck_assert_int_eq(event_loop_run_once(&loop, 1), 0);
	ck_assert_uint_eq(received, TURNS);
}
END_TEST

START_TEST(an_event_that_is_there_is_found_by_looking)
{
	loop.ahead.is_wanted = true;
	for (unsigned i = 1; i <= 10; i++) {
		ck_assert_int_eq(write(ends[1], "a", 1), 1);
		ck_assert_int_eq(event_loop_run_once(&loop, 10000), 1);
		ck_assert_uint_eq(received, i);
		ck_assert(loop.ahead.is_wanted);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("poll_ahead");
	TCase *decision = tcase_create("decision");
	TCase *loops = tcase_create("loop");
	SRunner *runner;
	int failed;

	tcase_add_test(decision, long_waits_are_slept_through);
	tcase_add_test(decision, a_short_wait_makes_one_look);
	tcase_add_test(decision, a_look_in_vain_is_followed_by_a_rest);
	suite_add_tcase(suite, decision);
	tcase_add_checked_fixture(loops, set_up, tear_down);
	tcase_set_timeout(loops, 60);
	tcase_add_test(loops, every_event_comes_through);
	tcase_add_test(loops, an_event_that_is_there_is_found_by_looking);
	suite_add_tcase(suite, loops);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
