import numpy as np
import time
from numpy.typing import NDArray
from scipy.linalg import lapack

from sft_interactions.transforms import complement, orders, subset_sums, superset_sums

SIGNS = np.array([1.0, -1.0])
TIME = {"asm": 0.0, "chol": 0.0, "solve": 0.0}

def _synthesis(x):
    """φ without its constant"""
    return subset_sums(x[..., 0, :]) - complement(subset_sums(x[..., 1, :]))

def _analysis(y):
    """Transpose of _synthesis."""
    return np.stack([superset_sums(y), -complement(subset_sums(y))], axis=-2)

class _Factor:
    """Cholesky factors of A·D·Aᵀ + E on the working rows."""

    def __init__(self, d, e, rows, cache, f32=False):
        zd = subset_sums(d)
        self.rows, self.factors = [], []
        self.d, self.e, self.mask = d, e, rows
        dtype = np.float32 if f32 else np.float64
        for b in range(len(d)):
            t0 = time.perf_counter()
            r = np.flatnonzero(rows[b])
            full = d.shape[-1] - 1
            g = zd[b, 0].astype(dtype); h = zd[b, 1].astype(dtype)[::-1]
            # h(~S & ~S') = hrev(S | S')
            m = g.take(r[:, None] & r)
            m += h.take(r[:, None] | r)
            m.ravel()[:: len(r) + 1] += e[b, r].astype(dtype)
            t1 = time.perf_counter(); TIME["asm"] += t1 - t0
            f = lapack.dpotrf if not f32 else lapack.spotrf
            c, info = f(m.T, lower=0, overwrite_a=1, clean=0)
            if info:
                raise RuntimeError(f"chol {info}")
            TIME["chol"] += time.perf_counter() - t1
            self.rows.append(r); self.factors.append(c)
        self.s = lapack.spotrs if f32 else lapack.dpotrs
        self.one = self._solve(rows.astype(float))
        self.one_sum = self.one.sum(axis=1)

    def _solve(self, rhs):
        out = np.zeros_like(rhs)
        t0 = time.perf_counter()
        for b, (r, c) in enumerate(zip(self.rows, self.factors)):
            out[b, r] = self.s(c, rhs[b, r], lower=0)[0]
        TIME["solve"] += time.perf_counter() - t0
        return out

    def solve(self, rhs, total, refine=1):
        """M·dy + dc = rhs on the rows, Σ dy = total."""
        dy = np.zeros_like(rhs); dc = np.zeros(len(rhs))
        r, t = rhs, total
        for k in range(refine + 1):
            a = self._solve(r)
            c = (a.sum(axis=1) - t) / self.one_sum
            dy += a - c[:, None] * self.one
            dc += c
            if k < refine:
                r = (rhs - _synthesis(self.d * _analysis(dy)) - self.e * dy - dc[:, None]) * self.mask
                t = total - dy.sum(axis=1)
        return dy, dc

def _max_step(x, dx, axes):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(dx < 0, -x / dx, np.inf).min(axis=axes)

def finish(v, zeta, w, X, S, T, U, cols):
    size = len(v); n = size.bit_length() - 1
    X_ = X * cols
    K = (X > S) & cols
    act = U > T
    if K.all(0).any() or act.all(0).any() or act.sum() != K.sum() + 1:
        return None
    a = np.flatnonzero(act.any(0)); sigma = np.where(act[0, a], 1.0, -1.0)
    ka = np.flatnonzero(K[:, 0].any(0)); ko = np.flatnonzero(K[:, 1].any(0))
    M = np.empty((len(a), len(a)))
    M[:, :len(ka)] = (a[:, None] & ka) == ka
    M[:, len(ka):-1] = (a[:, None] & ko) == 0
    M[:, len(ka):-1] *= -1
    M[:, -1] = 1
    lu, piv, info = lapack.dgetrf(M)
    if info: return None
    x = lapack.dgetrs(lu, piv, v[a] + sigma * zeta)[0]
    s = np.concatenate([np.where(K[0, 0, ka], 1.0, -1.0), np.where(K[0, 1, ko], 1.0, -1.0), [0.0]])
    ww = np.concatenate([w[0, ka], w[1, ko], [0.0]]) * s
    ya = lapack.dgetrs(lu, piv, ww, trans=1)[0]
    y = np.zeros(size); y[a] = ya
    full = np.zeros((2, size)); full[0, ka] = x[:len(ka)]; full[1, ko] = x[len(ka):-1]
    z = np.abs(_analysis(y)) * cols
    scale = max(1.0, (z / w).max())
    res = np.abs(_synthesis(full) + x[-1] - v).max() - zeta
    p = (w * np.abs(full)).sum(); d = (v @ y - zeta * np.abs(y).sum()) / scale
    return full, x[-1], (p - d) / p + max(0, res), res, y


def solve(v, zeta, w, *, tol=1e-9, maxit=60, correctors=2, verbose=False, drop=0.1, f32_until=0., dropgap=.3, tdrop=.3, x0=.1, u0=.1):
    B, size = v.shape
    n = size.bit_length() - 1
    cols = np.stack([orders(n) >= 1, orders(n) >= 2])
    w = np.where(cols, w, 1.0)
    c = np.median(v, axis=1)
    spread = np.median(np.abs(v - c[:, None]), axis=1)
    zt = zeta[:, None]
    y = np.zeros_like(v)
    X = np.where(cols, x0 * spread[:, None, None, None], 0.0) * np.ones((1, 2, 1, 1))
    S = np.broadcast_to(w, X.shape).copy()
    q = np.zeros_like(v)
    U = np.full((B, 2, size), u0)
    T = zt[:, None] * np.ones((1, 2, size))
    R = np.ones((B, size), bool); sticky = ~R
    sg = SIGNS[:, None]; sgx = SIGNS[:, None, None]
    for it in range(maxit):
        rt = (zt[:, None] - sg * q[:, None] - T) * R[:, None]
        x = X[:, 0] - X[:, 1]
        phi = _synthesis(x) + c[:, None]
        rp = (v + q - phi) * R
        ry = (y + U[:, 0] - U[:, 1]) * R
        z = _analysis(y)
        rs = (w - sgx * z[:, None] - S) * cols
        N = 4 * cols.sum() * .5 + 2 * R.sum(1)
        mu = ((X * S).sum((1, 2, 3)) + (U * T * R[:, None]).sum((1, 2))) / N
        pobj = (w * X).sum((1, 2, 3)); dobj = (v * y).sum(1) - zeta * np.abs(y).sum(1)
        gap = np.abs(pobj - dobj) / pobj
        if verbose:
            K = (X > S).sum((1, 2, 3)); act = (U > T).sum((1, 2))
            print(it, f"mu {mu[0]:.1e} rp {np.abs(rp[0]).max():.1e} ry {np.abs(ry[0]).max():.1e} rs {np.abs(rs[0]).max():.1e} p {pobj[0]:.6f} gap {gap[0]:.1e} K {K[0]} act {act[0]} R {R[0].sum()}", end=" ")
        if (gap < tol).all() and np.abs(rp).max() < tol * spread.min() and np.abs(rs).max() < tol:
            break
        D = (X / S).sum(1) * cols
        E = np.where(R, 1 / (U / T).sum(1), 0.0)
        F = _Factor(D, E, R, None, f32=(gap.max() > f32_until) if f32_until else False)
        def direction(CX, CT):
            rx = (CX - X * rs[:, None] if rs.ndim == 3 else CX - X * rs) / S
            G = (CT - U * rt) / T
            rq = (-ry + G[:, 1] - G[:, 0]) * R
            r = (rp - _synthesis(rx[:, 0] - rx[:, 1]) + E * rq) * R
            dy, dc = F.solve(r, -y.sum(1))
            z = _analysis(dy)
            dS = (rs - sgx * z[:, None]) * cols
            dX = (CX - X * dS) / S * cols
            dq = E * (rq - dy)
            dT = (rt - sg * dq[:, None]) * R[:, None]
            dU = (CT - U * dT) / T * R[:, None]
            return dy, dc, dX, dS, dq, dT, dU
        def steps(d):
            ap = np.minimum(1, np.minimum(_max_step(X, d[2], (1, 2, 3)), _max_step(T, d[5], (1, 2))))
            ad = np.minimum(1, np.minimum(_max_step(S, d[3], (1, 2, 3)), _max_step(U, d[6], (1, 2))))
            return ap, ad
        e4 = lambda a: a[:, None, None, None]
        e3 = lambda a: a[:, None, None]
        d = direction(-X * S, -U * T * R[:, None])
        ap, ad = steps(d)
        mua = (((X + e4(ap) * d[2]) * (S + e4(ad) * d[3])).sum((1, 2, 3)) + ((U + e3(ad) * d[6]) * (T + e3(ap) * d[5]) * R[:, None]).sum((1, 2))) / N
        sig = (mua / mu) ** 3
        tgt = sig * mu
        CX = (e4(tgt) - X * S - d[2] * d[3]) * cols
        CT = (e3(tgt) - U * T - d[6] * d[5]) * R[:, None]
        d = direction(CX, CT); ap, ad = steps(d)
        for _ in range(correctors):
            a2, b2 = np.minimum(1, ap + .3), np.minimum(1, ad + .3)
            px = (X + e4(a2) * d[2]) * (S + e4(b2) * d[3]); pt = (U + e3(b2) * d[6]) * (T + e3(a2) * d[5])
            CX2 = (CX + np.maximum(np.clip(px, e4(.1 * tgt), e4(10 * tgt)) - px, -10 * e4(tgt))) * cols
            CT2 = (CT + np.maximum(np.clip(pt, e3(.1 * tgt), e3(10 * tgt)) - pt, -10 * e3(tgt))) * R[:, None]
            d2 = direction(CX2, CT2); ap2, ad2 = steps(d2)
            ok = (ap2 + ad2 > ap + ad + .02)
            if not ok.any(): break
            pick = lambda a, b: np.where(ok.reshape((-1,) + (1,) * (a.ndim - 1)), b, a)
            d = tuple(pick(a, b) for a, b in zip(d, d2)); ap, ad, CX, CT = pick(ap, ap2), pick(ad, ad2), pick(CX, CX2), pick(CT, CT2)
        ap = np.where(ap < 1, .995 * ap, 1); ad = np.where(ad < 1, .995 * ad, 1)
        if verbose: print(f"ap {ap[0]:.2f} ad {ad[0]:.2f} sig {sig[0]:.0e}")
        y += ad[:, None] * d[0]; c = c + ap * d[1]
        X += e4(ap) * d[2]; S += e4(ad) * d[3]; q += ap[:, None] * d[4]; T += e3(ap) * d[5]; U += e3(ad) * d[6]
        if (gap < 1e-4).all() and gap.shape == (1,):
            f = finish(v[0], zeta[0], w, X[0], S[0], T[0], U[0], cols)
            if verbose: print("    finish", f and (f[2], f[3]), end=" ")
            if f and f[2] < 1e-11:
                return X, S, y, c, U, q, R, it, np.array([f[2]])
    return X, S, y, c, U, q, R, it, gap
