// Conformance tool: read_corpus MODEL TEXT [FIELD]. Prints the corpus' documents, which of them a chat template made, each
// document's ids, and the notes, as JSON.
#include <iostream>

#include "core/base/error.h"
#include "core/text/chat_template.h"
#include "core/text/corpus.h"
#include "core/text/tokenizer.h"

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: read_corpus MODEL TEXT [FIELD]\n";
    return 2;
  }
  try {
    const auto tokenizer = qb::Tokenizer::load(argv[1]);
    const auto chat = qb::ChatTemplate::load(argv[1], *tokenizer);
    const qb::Corpus corpus = qb::load_corpus({"", argv[2], argc > 3 ? argv[3] : "text"}, chat.get());
    nlohmann::json ids = nlohmann::json::array();
    for (size_t i = 0; i < corpus.documents.size(); ++i) ids.push_back(tokenizer->encode(corpus.documents[i], !corpus.templated[i]));
    std::cout << nlohmann::json{{"documents", corpus.documents}, {"templated", corpus.templated}, {"ids", ids}, {"notes", corpus.notes}, {"hash", corpus.hash}}.dump() << '\n';
  } catch (const qb::Error& e) {
    std::cerr << e.what() << '\n';
    return 1;
  }
  return 0;
}
