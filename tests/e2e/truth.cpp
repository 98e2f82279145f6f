/* truth: a C++ program with much inlined from the standard library, for truth.py. */
#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <regex>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

namespace report {
template <typename Key> class Table {
public:
    void add(const Key &key, double value) { rows[key].push_back(value); }
    double best(const std::function<double(const std::vector<double> &)> &rank) const {
        double top = 0;
        for (const auto &row : rows) top = std::max(top, rank(row.second));
        return top;
    }

private:
    std::map<Key, std::vector<double>> rows;
};

static double mean(const std::vector<double> &values) {
    double sum = 0;
    for (double v : values) sum += v;
    return values.empty() ? 0 : sum / static_cast<double>(values.size());
}
} // namespace report

int main(int argc, char **argv) {
    report::Table<std::string> table;
    std::unordered_map<std::string, std::unique_ptr<std::string>> seen;
    std::regex word("([a-z]+)([0-9]*)");
    std::ostringstream text;
    for (int i = 0; i < argc + 100; i++) text << "word" << i * 37 % 19 << ' ' << argv[0] << ' ';
    const std::string all = text.str();
    for (std::sregex_iterator it(all.begin(), all.end(), word), end; it != end; ++it) {
        auto &slot = seen[it->str(1)];
        if (!slot) slot.reset(new std::string(it->str(2)));
        table.add(it->str(1), static_cast<double>(it->str(2).size()));
    }
    std::vector<std::string> names;
    for (const auto &entry : seen) names.push_back(entry.first);
    std::sort(names.begin(), names.end(), [](const std::string &a, const std::string &b) { return a.size() < b.size(); });
    std::printf("%zu %f %f\n", names.size(), table.best(report::mean), table.best([](const std::vector<double> &v) { return v.front(); }));
    return 0;
}
