/* proxy/body_pipe.h: nothing that waits is forgotten when room comes late. */
#include "proxy/body_pipe.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>

struct fake_leg {
	struct http_leg leg; /* first */
	size_t left;	     /* to be received */
	size_t room;
	size_t taken;
	size_t room_after_flush;
	unsigned again;
};

static void receive(struct http_leg *leg, struct byte_buffer *out)
{
	struct fake_leg *fake = (struct fake_leg *)leg;

	while (fake->left > 0 && byte_buffer_append(out, "x", 1) == 0)
		fake->left--;
	if (fake->left == 0)
		leg->receiving = HTTP_RECEIVING_ENDED;
}

static size_t room(struct http_leg *leg)
{
	return ((struct fake_leg *)leg)->room;
}

static int send_body(struct http_leg *leg, const uint8_t *data, size_t length)
{
	struct fake_leg *fake = (struct fake_leg *)leg;

	(void)data;
	ck_assert_uint_le(length, fake->room);
	fake->room -= length;
	fake->taken += length;
	return 0;
}

static int send_end(struct http_leg *leg, const struct http_head *trailers)
{
	(void)leg;
	(void)trailers;
	return 0;
}

static bool flush(struct http_leg *leg)
{
	struct fake_leg *fake = (struct fake_leg *)leg;

	fake->room = fake->room_after_flush;
	return fake->room > 0;
}

static void again(struct http_leg *leg)
{
	((struct fake_leg *)leg)->again++;
}

static const struct http_leg_ops ops = {
	.receive = receive,
	.room = room,
	.send_body = send_body,
	.send_end = send_end,
	.flush = flush,
	.again = again,
};

static struct fake_leg make_leg(size_t left)
{
	return (struct fake_leg){ .leg = { .ops = &ops, .receiving = HTTP_RECEIVING_BODY },
				  .left = left };
}

START_TEST(room_that_a_late_flush_makes_is_used)
{
	struct fake_leg from = make_leg(1000);
	struct fake_leg to = make_leg(0);
	struct body_pipe pipe;

	body_pipe_init(&pipe);
	to.room = 100;
	body_pipe_move(&pipe, &from.leg, &to.leg);
	ck_assert_uint_eq(to.taken, 100);
	/* What blocks will bring an event. */
	body_pipe_resume(&pipe, &from.leg, &to.leg);
	ck_assert_uint_eq(from.again, 0);
	/* No event comes when the transport took all of it meanwhile. */
	to.room_after_flush = 2000;
	ck_assert(to.leg.ops->flush(&to.leg));
	body_pipe_resume(&pipe, &from.leg, &to.leg);
	ck_assert_uint_eq(from.again, 1);
	body_pipe_move(&pipe, &from.leg, &to.leg);
	ck_assert_uint_eq(to.taken, 1000);
	ck_assert_int_eq(pipe.state, BODY_PIPE_ENDED);
	body_pipe_resume(&pipe, &from.leg, &to.leg);
	ck_assert_uint_eq(from.again, 1);
	body_pipe_release(&pipe);
}
END_TEST

struct fake_filter {
	struct body_filter filter; /* first */
	size_t copied;
	size_t moved;
};

static int feed(struct body_filter *filter, const uint8_t *data, size_t length, bool is_last,
		struct byte_buffer *out)
{
	(void)is_last;
	((struct fake_filter *)filter)->copied += length;
	return byte_buffer_append(out, data, length);
}

static int feed_buffer(struct body_filter *filter, struct byte_buffer *in, bool is_last,
		       struct byte_buffer *out)
{
	(void)is_last;
	ck_assert_uint_eq(byte_buffer_length(out), 0);
	((struct fake_filter *)filter)->moved += byte_buffer_length(in);
	byte_buffer_move(in, out);
	return 0;
}

static void free_nothing(struct body_filter *filter)
{
	(void)filter;
}

/* A reader that is slow costs no copies. */
START_TEST(what_comes_behind_what_waits_is_not_copied)
{
	struct fake_filter filter = {
		.filter = { .feed = feed, .free = free_nothing, .feed_buffer = feed_buffer }
	};
	const size_t length = 300001;
	struct fake_leg from = make_leg(length);
	struct fake_leg to = make_leg(0);
	struct body_pipe pipe;

	body_pipe_init(&pipe);
	body_pipe_add(&pipe, &filter.filter);
	for (int turn = 0; turn < 100 && pipe.state == BODY_PIPE_OPEN; turn++) {
		to.room = 7777;
		to.room_after_flush = 0;
		body_pipe_move(&pipe, &from.leg, &to.leg);
	}
	ck_assert_int_eq(pipe.state, BODY_PIPE_ENDED);
	ck_assert_uint_eq(to.taken, length);
	ck_assert_uint_eq(filter.moved, length);
	ck_assert_uint_eq(filter.copied, 0);
	body_pipe_release(&pipe);
}
END_TEST

static int refuse(struct body_filter *filter, const uint8_t *data, size_t length, bool is_last,
		  struct byte_buffer *out)
{
	(void)data;
	(void)is_last;
	(void)out;
	((struct fake_filter *)filter)->copied += length;
	return -EACCES;
}

/* What a refusal tells of: all that came, and that none of it went. */
START_TEST(what_came_is_counted_though_it_does_not_go_on)
{
	struct fake_filter filter = { .filter = { .feed = refuse, .free = free_nothing } };
	struct fake_leg from = make_leg(1000);
	struct fake_leg to = make_leg(0);
	struct byte_buffer held;
	struct body_pipe pipe;

	byte_buffer_init(&held, 100);
	ck_assert_int_eq(byte_buffer_append(&held, "held", 4), 0);
	body_pipe_init(&pipe);
	body_pipe_add(&pipe, &filter.filter);
	body_pipe_take(&pipe, &held);
	ck_assert_uint_eq(pipe.taken, 4);
	to.room = 7777;
	body_pipe_move(&pipe, &from.leg, &to.leg);
	ck_assert_int_eq(pipe.state, BODY_PIPE_BLOCKED);
	ck_assert_uint_eq(pipe.taken, filter.copied);
	ck_assert_uint_gt(pipe.taken, 4);
	ck_assert_uint_eq(pipe.moved, 0);
	body_pipe_release(&pipe);
	byte_buffer_release(&held);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("body_pipe");
	TCase *all = tcase_create("all");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(all, room_that_a_late_flush_makes_is_used);
	tcase_add_test(all, what_comes_behind_what_waits_is_not_copied);
	tcase_add_test(all, what_came_is_counted_though_it_does_not_go_on);
	suite_add_tcase(suite, all);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
