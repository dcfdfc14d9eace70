"""Action as the reference algorithm states it, in plain NumPy, for linear worlds and models."""

import math
from typing import NamedTuple

import numpy as np
import scipy.linalg


class LinearWorld(NamedTuple):
    """y = gx x + gv v + ga a + z, x' = fx x + fv v + fa a + w, per sample."""

    gx: np.ndarray
    gv: np.ndarray
    ga: np.ndarray
    fx: np.ndarray
    fv: np.ndarray
    fa: np.ndarray


class LinearModel(NamedTuple):
    """All levels stacked: what is subtracted from (y, causes, η) and from dx, the precisions of both, per
    sample, with their smoothness by row, and how many of the causes are at the top."""

    gx: np.ndarray
    gv: np.ndarray
    fx: np.ndarray
    fv: np.ndarray
    precision_z: np.ndarray
    precision_w: np.ndarray
    top: int


def smoothness_precision(n, s):
    def derivative(k):
        return (-1.0) ** k * math.prod(range(1, 2 * k, 2)) / (2 * s * s) ** k

    V = [[(-1.0) ** i * derivative((i + j) // 2) * ((i + j) % 2 == 0) for j in range(n)] for i in range(n)]
    return np.linalg.inv(np.array(V))


def embedded(series, t, n):
    """Derivatives at sample t, counted from 1; beyond the ends the end samples are repeated."""
    k = np.arange(1, n + 1) + np.trunc(t - (n + 1) / 2)
    place = t - k[0] + 1
    T = [[(i - place) ** j / math.factorial(j) for j in range(n)] for i in range(1, n + 1)]
    return np.linalg.inv(np.array(T)) @ series[np.clip(k, 1, len(series)).astype(int) - 1]


def shift(orders, size):
    return np.kron(np.eye(orders, k=1), np.eye(size))


def act(world, model, z, w, eta, *, n, d, s, reflex, effort, mask, action, start):
    """Courses of x, (y, v), a and u; `z` stacks the noise of y and the world's causes."""
    (ny, m), c, na = world.gx.shape, world.gv.shape[1], world.ga.shape[1]
    (nz, nx), nv, nc = model.gx.shape, model.gv.shape[1], model.top
    one, some, R = np.eye(n), np.eye(n, d), smoothness_precision(n, s)
    kron = np.kron
    E_u = -np.block(
        [
            [kron(one, model.gx), kron(some, model.gv)],
            [kron(one, model.fx) - shift(n, nx), kron(some, model.fv)],
        ]
    )
    E_y = np.vstack([kron(one, np.eye(nz, ny)), np.zeros((n * nx, n * ny))])
    E_eta = -np.vstack([kron(one, np.eye(nz)[:, nz - nc :]), np.zeros((n * nx, n * nc))])
    Pi = scipy.linalg.block_diag(kron(R, model.precision_z), kron(R, model.precision_w))
    P_u = math.exp(-8) * scipy.linalg.block_diag(kron(R, np.eye(nx)), kron(R[:d, :d], np.eye(nv)))
    felt = np.zeros((nz, nz))
    felt[:ny, :ny] = reflex
    Gamma = scipy.linalg.block_diag(kron(R, felt), np.zeros((n * nx, n * nx)))
    E_v = E_y @ kron(one, np.eye(ny, ny + c))
    first = one[:, :1]
    powers = sum(kron(np.eye(n, k=-k), np.linalg.matrix_power(world.fx, k - 1)) for k in range(1, n))
    reached = kron(first, world.ga) + kron(one, world.gx) @ powers @ kron(first, world.fa)
    E_a = E_y @ (reached.reshape(n, ny, na) * mask).reshape(n * ny, na)
    G_v = np.zeros((ny + c, ny + c))
    G_v[:ny, ny:] = world.gv
    G_x, F_v = np.vstack([world.gx, np.zeros((c, m))]), np.hstack([np.zeros((m, ny)), world.fv])
    D = scipy.linalg.block_diag(shift(n, nx), shift(d, nv))
    sizes = [n * (ny + c), n * m, n * (ny + c), n * m, len(D), d * nc, na]
    ends = np.cumsum([0, *sizes])
    J = np.zeros((ends[-1], ends[-1]))
    for row, column, block in (
        (0, 0, kron(np.eye(n, k=1), G_v)),
        (0, 1, kron(np.eye(n, k=1), G_x)),
        (0, 2, shift(n, ny + c)),
        (1, 0, kron(one, F_v)),
        (1, 1, kron(one, world.fx)),
        (1, 3, np.eye(n * m)),
        (1, 6, kron(first, world.fa)),
        (2, 2, shift(n, ny + c)),
        (3, 3, shift(n, m)),
        (4, 0, -E_u.T @ Pi @ E_v),
        (4, 4, D - E_u.T @ Pi @ E_u - P_u),
        (4, 5, -E_u.T @ Pi @ E_eta[:, : d * nc]),
        (4, 6, -E_u.T @ Pi @ E_a),
        (5, 5, shift(d, nc)),
        (6, 0, -E_a.T @ Gamma @ E_v),
        (6, 4, -E_a.T @ Gamma @ E_u),
        (6, 5, -E_a.T @ Gamma @ E_eta[:, : d * nc]),
        (6, 6, -E_a.T @ Gamma @ E_a - effort),
    ):
        J[ends[row] : ends[row + 1], ends[column] : ends[column + 1]] = block
    v, x, u, a = np.zeros((n, ny + c)), np.zeros((n, m)), np.zeros(len(D)), np.array(action, float)
    x[0], done, found = start, [], []
    for t in range(1, len(z) + 1):
        noise, push, expected = embedded(z, t, n), embedded(w, t, n), embedded(eta, t, n)
        done.append(a)
        acted = embedded(np.array(done), t, n)
        for i in range(n):
            cause = noise[0, ny:] if i == 0 else v[i, ny:]
            sensed = world.gx @ x[i] + world.gv @ cause + world.ga @ acted[i] + noise[i, :ny]
            v[i] = np.concatenate([sensed, noise[i, ny:]])
            if i < n - 1:
                x[i + 1] = world.fx @ x[i] + world.fv @ v[i, ny:] + world.fa @ acted[i] + push[i]
        error = E_y @ v[:, :ny].ravel() + E_u @ u + E_eta @ expected.ravel()
        error[-nx:] = 0
        found.append((x[0].copy(), v[0].copy(), a, u))
        flow = np.concatenate(
            [
                shift(n, ny + c) @ v.ravel(),
                shift(n, m) @ x.ravel(),
                shift(n, ny + c) @ noise.ravel(),
                shift(n, m) @ push.ravel(),
                D @ u - E_u.T @ Pi @ error - P_u @ u,
                shift(d, nc) @ expected[:d].ravel(),
                -E_a.T @ Gamma @ error - effort @ a,
            ]
        )
        whole = np.zeros((len(J) + 1,) * 2)
        whole[1:, 0], whole[1:, 1:] = flow, J
        moved = np.split(scipy.linalg.expm(whole)[1:, 0], ends[1:-1])
        v, x, u, a = (
            v + moved[0].reshape(v.shape),
            x + moved[1].reshape(x.shape),
            u + moved[4],
            a + moved[6],
        )
    return [np.array(series) for series in zip(*found, strict=True)]
