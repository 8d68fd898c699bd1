"""x"""
import torch
def matching_loss(theta, start, target):
    return (theta - target).square().sum() / (start - target).square().sum()
