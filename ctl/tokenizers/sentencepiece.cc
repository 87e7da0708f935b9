// sentencepiece.cc: SentencePiece for lhctl, over its stdin and stdout; the frames are in
// ctl/tokenizer.h. One request at a time: lhctl starts more of it.
#include <sentencepiece_processor.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <unistd.h>
#include <vector>

namespace {

enum { READY = 1, ENCODE, IDS, DECODE, TEXT, ERROR };
constexpr uint32_t VERSION = 1;

// False at the end of the input.
bool read_all(void *data, size_t n)
{
	for (char *at = static_cast<char *>(data); n;) {
		ssize_t got = read(STDIN_FILENO, at, n);

		if (got <= 0)
			return false;
		at += got;
		n -= static_cast<size_t>(got);
	}
	return true;
}

void write_all(const void *data, size_t n)
{
	for (const char *at = static_cast<const char *>(data); n;) {
		ssize_t sent = write(STDOUT_FILENO, at, n);

		if (sent <= 0)
			std::exit(1); // nobody is there
		at += sent;
		n -= static_cast<size_t>(sent);
	}
}

void write_frame(uint32_t kind, const void *body, size_t bytes)
{
	uint32_t head[2] = { static_cast<uint32_t>(bytes), kind };

	write_all(head, sizeof(head));
	write_all(body, bytes);
}

[[noreturn]] void fail(const std::string &why)
{
	write_frame(ERROR, why.data(), why.size() < 1000 ? why.size() : 1000);
	std::exit(1);
}

std::vector<uint32_t> words_of(const std::vector<char> &body)
{
	std::vector<uint32_t> words(body.size() / 4);

	std::memcpy(words.data(), body.data(), words.size() * 4);
	return words;
}

void encode(const sentencepiece::SentencePieceProcessor &model, const std::vector<char> &body)
{
	std::vector<uint32_t> head = words_of(body), out;
	uint32_t n = head[0];
	const char *text = body.data() + 4 * (n + size_t{ 1 });
	std::vector<int> ids;

	out.resize(n);
	for (uint32_t i = 0; i < n; i++) {
		auto status = model.Encode({ text, head[i + 1] }, &ids);

		if (!status.ok())
			fail(status.ToString());
		text += head[i + 1];
		out[i] = static_cast<uint32_t>(ids.size());
		out.insert(out.end(), ids.begin(), ids.end());
	}
	write_frame(IDS, out.data(), out.size() * 4);
}

// The library shows control tokens as nothing; they stand between texts.
void decode(const sentencepiece::SentencePieceProcessor &model, const std::vector<char> &body)
{
	std::string all, text;
	std::vector<int> run;

	auto flush = [&] {
		auto status = model.Decode(run, &text);

		if (!status.ok())
			fail(status.ToString());
		all += text;
		run.clear();
	};
	for (uint32_t id : words_of(body)) {
		if (id >= static_cast<uint32_t>(model.GetPieceSize()))
			fail("an id beyond the vocabulary");
		if (!model.IsControl(static_cast<int>(id))) {
			run.push_back(static_cast<int>(id));
			continue;
		}
		flush();
		all += model.IdToPiece(static_cast<int>(id));
	}
	flush();
	write_frame(TEXT, all.data(), all.size());
}

} // namespace

int main(int argc, char **argv)
{
	sentencepiece::SentencePieceProcessor model;
	uint32_t head[2];

	if (argc != 2)
		fail("a file is wanted");
	if (auto status = model.Load(argv[1]); !status.ok())
		fail(status.ToString());
	uint32_t ready[] = { VERSION, static_cast<uint32_t>(model.GetPieceSize()) };
	write_frame(READY, ready, sizeof(ready));
	while (read_all(head, sizeof(head))) {
		std::vector<char> body(head[0]);

		if (!read_all(body.data(), body.size()))
			break;
		if (head[1] == ENCODE)
			encode(model, body);
		else if (head[1] == DECODE)
			decode(model, body);
		else
			fail("a frame of another version");
	}
	return 0;
}
