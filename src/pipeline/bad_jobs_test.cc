// SPDX-License-Identifier: Apache-2.0
// Job files with mistakes and what is said about them: tests/data/bad-jobs.txt. With
// MS_UPDATE_GOLDEN set, the test writes what is said now into the file, for a person to read.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "pipeline/parse_spec.h"

namespace millstream {
namespace {

constexpr const char* kFile = MS_TEST_DATA "/bad-jobs.txt";

struct BadJob {
  std::string title;
  std::string yaml;
  std::string expected;
};

/// "=== title", the job file, "---> ", the expected lines.
std::vector<BadJob> ReadCases(std::string* header) {
  std::ifstream stream(kFile);
  std::vector<BadJob> cases;
  bool in_yaml = false;
  for (std::string line; std::getline(stream, line);) {
    if (line.starts_with("=== ")) {
      cases.push_back({line.substr(4), "", ""});
      in_yaml = true;
    } else if (cases.empty()) {
      *header += line + "\n";
    } else if (line == "--->") {
      in_yaml = false;
    } else if (in_yaml) {
      cases.back().yaml += line + "\n";
    } else if (!line.empty()) {
      cases.back().expected += line + "\n";
    }
  }
  return cases;
}

/// What is said about the case, without the folder's path.
std::string Said(const BadJob& bad) {
  const auto result = ParseJobText(bad.yaml, MS_TEST_DATA "/jobs/job.yaml", {});
  if (result.ok()) return "no mistake\n";
  std::string said;
  std::istringstream lines(result.status().message());
  const std::string folder = MS_TEST_DATA "/jobs/";
  for (std::string line; std::getline(lines, line);) {
    for (std::size_t at = line.find(folder); at != std::string::npos; at = line.find(folder)) {
      line.erase(at, folder.size());
    }
    said += line + "\n";
  }
  return said;
}

TEST(BadJobsTest, EachMistakeIsSaidInOurWords) {
  std::string header;
  std::vector<BadJob> cases = ReadCases(&header);
  ASSERT_GE(cases.size(), 40u);
  for (BadJob& bad : cases) {
    const std::string said = Said(bad);
    if (std::getenv("MS_UPDATE_GOLDEN") != nullptr) bad.expected = said;
    EXPECT_EQ(said, bad.expected) << bad.title;
  }
  if (std::getenv("MS_UPDATE_GOLDEN") == nullptr) return;
  std::ofstream out(kFile);
  out << header;
  const char* separator = "";
  for (const BadJob& bad : cases) {
    out << separator << "=== " << bad.title << "\n" << bad.yaml << "--->\n" << bad.expected;
    separator = "\n";
  }
}

TEST(BadJobsTest, NoChangedByteCrashesTheReader) {
  std::string header;
  std::mt19937 random(4);
  const auto below = [&random](std::size_t bound) { return random() % bound; };
  constexpr std::string_view kBytes = "{}[]:,\"'\\-#&*!|>%@`\n\t ${~0aé\xff";
  for (const BadJob& bad : ReadCases(&header)) {
    for (int i = 0; i < 40 && !bad.yaml.empty(); ++i) {
      std::string text = bad.yaml;
      for (int change = 0; change < 3; ++change) {
        const std::size_t at = below(text.size());
        const char byte = kBytes[below(kBytes.size())];
        if (below(2) == 0) {
          text[at] = byte;
        } else {
          text.insert(at, 1, byte);
        }
      }
      std::vector<SpecMistake> mistakes;
      const auto result = ParseJobText(text, "job.yaml", {}, &mistakes);
      EXPECT_EQ(result.ok(), mistakes.empty()) << text;
    }
  }
}

}  // namespace
}  // namespace millstream
