/* templates.cpp: what optimised C++ looks like to a profiler: many small templates inlined into each
   other, some calls left, virtual functions, an exception now and then.

     templates ROUNDS */
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

/* Expression templates over vectors: the whole expression is one loop in one function. */
template <typename L, typename R, typename F> struct expression {
    const L &l;
    const R &r;
    double operator[](size_t i) const { return F::apply(l[i], r[i]); }
};
struct sum { static double apply(double a, double b) { return a + b; } };
struct product { static double apply(double a, double b) { return a * b; } };
struct distance { static double apply(double a, double b) { return a > b ? a - b : b - a; } };

struct row {
    std::vector<double> v;
    double operator[](size_t i) const { return v[i]; }
    template <typename E> void assign(const E &e) { for (size_t i = 0; i < v.size(); i++) v[i] = e[i]; }
};
template <typename F, typename L, typename R> expression<L, R, F> make(const L &l, const R &r) { return {l, r}; }

/* A recursion of types, unrolled by the compiler. */
template <int N> struct horner {
    static double at(double x, const double *c) { return c[0] + x * horner<N - 1>::at(x, c + 1); }
};
template <> struct horner<0> { static double at(double, const double *c) { return c[0]; } };

struct shape {
    virtual ~shape() {}
    virtual double area(double) const = 0;
};
template <int N> struct polygon : shape {
    double c[N + 1];
    polygon() { for (int i = 0; i <= N; i++) c[i] = 1.0 / (i + N); }
    double area(double x) const override { return horner<N>::at(x, c); }
};

static double fold(const std::vector<std::unique_ptr<shape>> &shapes, const std::function<double(double)> &f, double x)
{
    double total = 0;
    for (const auto &s : shapes) total += f(s->area(x));
    return total;
}

static size_t words(int n)
{
    std::map<std::string, size_t> count;
    uint32_t x = 1;
    for (int i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        count["key" + std::to_string(x >> 22)]++;
    }
    return count.size();
}

static int thrower(int n)
{
    if (n % 3 == 0) throw std::runtime_error("three");
    return n;
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? std::atoi(argv[1]) : 100;
    row a, b, c;
    a.v.assign(4096, 1.5);
    b.v.assign(4096, 0.25);
    c.v.assign(4096, 0);
    std::vector<std::unique_ptr<shape>> shapes;
    shapes.emplace_back(new polygon<3>);
    shapes.emplace_back(new polygon<9>);
    shapes.emplace_back(new polygon<17>);
    double total = 0;
    for (int i = 0; i < rounds; i++) {
        for (int k = 0; k < 300; k++) {
            c.assign(make<sum>(make<product>(a, b), make<distance>(c, a)));
            std::swap(a.v[static_cast<size_t>(k)], c.v[static_cast<size_t>(k)]);
        }
        for (int k = 0; k < 20000; k++) total += fold(shapes, [&](double x) { return x * 0.5 + total * 1e-9; }, k * 1e-6);
        total += static_cast<double>(words(10000));
        for (int k = 0; k < 200; k++) {
            try { total += thrower(k); } catch (const std::exception &e) { total += e.what()[0]; }
        }
    }
    std::printf("%g\n", total + c.v[17]);
    return 0;
}
