/*
 * HTTP/2 as the broker takes it from a guest and from a server. The first byte chooses the role and
 * how much arrives at once; the rest is what the peer sends, behind the preface where a client
 * sends one. As a server, every request is answered with its own body; as a client, one request is
 * under way. What is taken must be what HTTP/1 could carry.
 */
#include "base/checked.h"
#include "proxy/body_pipe.h"
#include "proxy/http2_codec.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

static void must(bool condition)
{
	if (!condition)
		abort();
}

/* One message that goes back as it came. */
struct echo {
	struct body_pipe pipe;
	bool begun;
};

static void on_ready(struct stream *stream)
{
	(void)stream;
}

static void check_text(struct http_text text)
{
	must(memchr(text.data, '\r', text.length) == NULL);
	must(memchr(text.data, '\n', text.length) == NULL);
	must(memchr(text.data, '\0', text.length) == NULL);
}

static void check_head(const struct http_head *head)
{
	check_text(http_head_method(head));
	check_text(http_head_path(head));
	check_text(http_head_authority(head));
	for (size_t i = 0; i < http_head_field_count(head); i++) {
		check_text(http_head_field(head, i).value);
		must(http_is_token(http_head_field(head, i).name.data,
				   http_head_field(head, i).name.length));
	}
}

static void end(struct http_leg *leg, bool is_cut)
{
	struct echo *echo = leg->user;

	body_pipe_release(&echo->pipe);
	free(echo);
	http2_leg_release(leg, is_cut);
}

static void on_changed(struct http_leg *leg)
{
	struct echo *echo = leg->user;

	if (leg->receiving == HTTP_RECEIVING_FAILED || leg->send_failed) {
		end(leg, true);
		return;
	}
	if (!echo->begun) {
		const struct http_framing framing = { .kind = HTTP_FRAMING_CHUNKED };
		struct http_head *head = http_head_new();

		must(head != NULL);
		http_head_set_status(head, 200);
		check_head(leg->head);
		must(leg->ops->send_head(leg, head, &framing) == 0);
		http_head_free(head);
		echo->begun = true;
	}
	body_pipe_move(&echo->pipe, leg, leg);
	if (leg->receiving == HTTP_RECEIVING_ENDED && leg->trailers)
		check_head(leg->trailers);
	if (echo->pipe.state != BODY_PIPE_OPEN)
		end(leg, echo->pipe.state != BODY_PIPE_ENDED);
}

static void on_answer(struct http_leg *leg)
{
	struct echo *echo = leg->user;
	struct byte_buffer *sink = &echo->pipe.buffers[0];

	while (leg->receiving == HTTP_RECEIVING_ENDED && http_head_status(leg->head) < 200) {
		check_head(leg->head);
		must(http_head_status(leg->head) != 101);
		leg->ops->skip_head(leg);
	}
	if (leg->receiving != HTTP_RECEIVING_HEAD && leg->receiving != HTTP_RECEIVING_FAILED) {
		check_head(leg->head);
		leg->ops->receive(leg, sink);
		byte_buffer_release(sink);
	}
}

static void attach(struct http_leg *leg, void (*changed)(struct http_leg *leg))
{
	struct echo *echo = calloc(1, sizeof(*echo));

	must(echo != NULL);
	body_pipe_init(&echo->pipe);
	leg->user = echo;
	leg->changed = changed;
}

static void on_request(void *user, struct http_leg *leg)
{
	(void)user;
	attach(leg, on_changed);
	on_changed(leg);
}

static void ask(struct http2_codec *codec, struct http_leg **ret_leg)
{
	const struct http_framing framing = { .kind = HTTP_FRAMING_NONE };
	struct http_head *head = http_head_new();
	struct http_leg *leg = http2_codec_open(codec);

	must(head && leg);
	attach(leg, on_answer);
	must(http_head_set_method(head, "GET", 3) == 0 && http_head_set_path(head, "/", 1) == 0 &&
	     http_head_set_authority(head, "a.test", 6) == 0);
	must(leg->ops->send_head(leg, head, &framing) == 0);
	http_head_free(head);
	*ret_leg = leg;
}

/* Everything that the codec says is thrown away. */
static void exchange_bytes(struct http2_codec *codec, int fd, const uint8_t *data, size_t size,
			   size_t step)
{
	uint8_t waste[65536];

	for (size_t at = 0; at < size && !codec->is_over; at += step) {
		must(send(fd, data + at, MIN_OF(step, size - at), MSG_NOSIGNAL) > 0);
		codec->stream->can_read = true;
		codec->stream->is_drained = false;
		http2_codec_turn(codec);
		while (recv(fd, waste, sizeof(waste), MSG_DONTWAIT) > 0) {
		}
	}
}

static void run(enum http2_role role, const uint8_t *data, size_t size, size_t step)
{
	struct event_loop loop;
	struct http2_codec codec;
	struct stream stream;
	struct http_leg *asked = NULL;
	int pair[2];

	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
	must(event_loop_init(&loop) == 0);
	must(stream_init(&stream, &loop, pair[0], on_ready) == 0);
	must(http2_codec_init(&codec, &stream, role) == 0);
	codec.accept = on_request;
	if (role == HTTP2_CLIENT)
		ask(&codec, &asked);
	else
		exchange_bytes(&codec, pair[1], (const uint8_t *)preface, sizeof(preface) - 1,
			       sizeof(preface));
	exchange_bytes(&codec, pair[1], data, size, step);
	close(pair[1]);
	stream.can_read = true;
	stream.is_drained = false;
	http2_codec_turn(&codec);
	/* A server's legs have all failed and were ended. */
	if (asked)
		end(asked, false);
	http2_codec_release(&codec);
	stream_release(&stream);
	event_loop_release(&loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	run(data[0] & 1 ? HTTP2_CLIENT : HTTP2_SERVER, data + 1, size - 1,
	    16 * (size_t)((data[0] >> 1) + 1));
	return 0;
}
