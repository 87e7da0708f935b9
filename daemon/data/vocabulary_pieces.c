/* vocabulary_pieces.c: the pieces of a SentencePiece .model, a protocol buffer:
 *
 *   ModelProto     1: SentencePiece (repeated)  2: TrainerSpec
 *   SentencePiece  1: text  3: type, of which 3 is a control token
 *   TrainerSpec    46: text of the piece that begins a text  47: that ends it
 *
 * The id of a piece is its place. See vocabulary_int.h. */
#include "data/vocabulary_int.h"

#include <string.h>

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };
enum { PIECE = 1, TRAINER = 2, PIECE_TEXT = 1, PIECE_TYPE = 3, CONTROL = 3, BOS = 46,
       EOS = 47 };

struct part {
	const unsigned char *at, *end;
};

struct field {
	uint64_t number, value; /* of a varint */
	int type;
	struct part bytes;
};

static bool take_varint(struct part *p, uint64_t *value)
{
	*value = 0;
	for (int shift = 0; shift < 64 && p->at < p->end; shift += 7) {
		unsigned char byte = *p->at++;

		*value |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return true;
	}
	return false;
}

/* The next field of a message: 1, 0 at its end, -1: it is damaged. */
static int take_field(struct part *p, struct field *f)
{
	uint64_t tag, n = 0;

	if (p->at == p->end)
		return 0;
	if (!take_varint(p, &tag))
		return -1;
	f->number = tag >> 3;
	f->type = (int)(tag & 7);
	if (f->type == VARINT)
		return take_varint(p, &f->value) ? 1 : -1;
	if (f->type == FIXED64 || f->type == FIXED32)
		n = f->type == FIXED64 ? 8 : 4;
	else if (f->type != BYTES || !take_varint(p, &n))
		return -1;
	if (n > (uint64_t)(p->end - p->at))
		return -1;
	f->bytes = (struct part){ p->at, p->at + n };
	p->at += n;
	return 1;
}

static struct part text_part(const char *text)
{
	const unsigned char *at = (const unsigned char *)text;

	return (struct part){ at, at + strlen(text) };
}

static bool same(struct part a, struct part b)
{
	size_t n = (size_t)(a.end - a.at);

	return n == (size_t)(b.end - b.at) && !memcmp(a.at, b.at, n);
}

struct piece {
	struct part text;
	bool is_control;
};

static bool read_piece(struct part message, struct piece *piece)
{
	struct field f;
	int rc;

	*piece = (struct piece){ 0 };
	while ((rc = take_field(&message, &f)) > 0) {
		if (f.number == PIECE_TEXT && f.type == BYTES)
			piece->text = f.bytes;
		if (f.number == PIECE_TYPE && f.type == VARINT)
			piece->is_control = f.value == CONTROL;
	}
	return !rc && piece->text.at;
}

/* Ids of the pieces with these texts, the first ones; -1: there is none. The number of
 * pieces, or -1: it is no model. */
static int64_t scan(struct part model, const struct part *texts, int n, bool control,
		    int64_t *ids)
{
	int64_t count = 0;
	struct piece piece;
	struct field f;
	int rc;

	for (int i = 0; i < n; i++)
		ids[i] = -1;
	while ((rc = take_field(&model, &f)) > 0) {
		if (f.number != PIECE || f.type != BYTES)
			continue;
		if (!read_piece(f.bytes, &piece))
			return -1;
		for (int i = 0; i < n; i++)
			if (ids[i] < 0 && piece.is_control >= control &&
			    same(piece.text, texts[i]))
				ids[i] = count;
		count++;
	}
	return rc ? -1 : count;
}

/* What the trainer was told, if it was. */
static bool read_trainer(struct part model, struct part *bos, struct part *eos)
{
	struct field f, inner;
	int rc, in = 0;

	while ((rc = take_field(&model, &f)) > 0) {
		if (f.number != TRAINER || f.type != BYTES)
			continue;
		while ((in = take_field(&f.bytes, &inner)) > 0) {
			if (inner.number == BOS && inner.type == BYTES)
				*bos = inner.bytes;
			if (inner.number == EOS && inner.type == BYTES)
				*eos = inner.bytes;
		}
		if (in)
			return false;
	}
	return !rc;
}

static struct part whole(const char *data, size_t bytes)
{
	const unsigned char *at = (const unsigned char *)data;

	return (struct part){ at, at + bytes };
}

int lh__vocabulary_read_pieces(struct lh_vocabulary *v, const char *data, size_t bytes)
{
	struct part model = whole(data, bytes);
	struct part names[2] = { text_part("<s>"), text_part("</s>") };
	int64_t ids[2];

	if (!read_trainer(model, &names[0], &names[1]))
		return -1;
	v->size = scan(model, names, 2, true, ids);
	v->bos = ids[0];
	v->eos = ids[1];
	return v->size > 0 && v->size <= LH__VOCABULARY_IDS_MAX ? 0 : -1;
}

int64_t lh__vocabulary_find_piece(const char *data, size_t bytes, const char *token)
{
	struct part text = text_part(token);
	int64_t id;

	return scan(whole(data, bytes), &text, 1, false, &id) < 0 ? -1 : id;
}
